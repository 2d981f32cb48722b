"""The command line: arguments in, exit status out.

Exit status: 0 done; 1 the command found something (differences, problems, ill health, a demo step that ended
otherwise); 2 wrong use; 3 could not run; 130 and 143 ended by a signal. A command imports what it needs when it runs,
so that `--help` and `validate` start at once.

    reconciler validate sample-repo
    reconciler explain orders --cluster eu-west-1a -o json
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NoReturn

from reconciler import __version__
from reconciler.cli.output import FAILED, USAGE, CommandError, Output, print_error

Command = Callable[[argparse.Namespace, Output], int]
EXIT_BY_SIGNAL = 128


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = _wants_json(given)
    debug = "--debug" in given
    try:
        parsed = parser().parse_args(given)
        out = Output.for_terminal(getattr(parsed, "output", "text"), no_color=parsed.no_color)
        status: int = parsed.command(parsed, out)
        sys.stdout.flush()
        return status
    except CommandError as error:
        if debug and error.__cause__ is not None:
            traceback.print_exception(error)
        print_error(error, as_json=as_json)
        return error.status
    except KeyboardInterrupt:
        return EXIT_BY_SIGNAL + signal.SIGINT
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python must not complain about it when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BY_SIGNAL + signal.SIGPIPE
    except Exception as error:  # noqa: BLE001 - the last resort: one line, and the traceback with --debug
        if debug:
            traceback.print_exc()
        message = f"{type(error).__name__}: {error}"
        print_error(CommandError(FAILED, "unexpected", message, "--debug shows where"), as_json=as_json)
        return FAILED


def _wants_json(arguments: Sequence[str]) -> bool:
    """Asked before the arguments are parsed: a mistake in them is an error of the same shape."""
    if any(argument in ("-ojson", "-o=json", "--output=json") for argument in arguments):
        return True
    return any(first in ("-o", "--output") and second == "json" for first, second in pairwise(arguments))


class _Parser(argparse.ArgumentParser):
    """Wrong use is an error like any other; help keeps its line breaks."""

    def __init__(self, **named: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **named)

    def error(self, message: str) -> NoReturn:
        raise CommandError(USAGE, "usage", message, f"`{self.prog} --help` shows how")


# ---- the table of commands ---------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """All commands with their arguments and an example each."""
    top = _Parser(
        prog="reconciler",
        description="GitOps for fleets of Apache Flink applications: from one commit to the next in gated waves.",
        epilog="Exit status: 0 done, 1 found something, 2 wrong use, 3 could not run.\nExample: reconciler demo",
    )
    top.add_argument("--version", action="version", version=f"reconciler {__version__}")
    top.add_argument("--no-color", action="store_true", help="no colour")
    top.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_offline(commands)
    _add_asking(commands)
    _add_rollout(commands)
    return top


def _add(
    commands: Any,
    name: str,
    does: str,
    example: str,
    command: Command,
    *,
    formats: tuple[str, ...] = ("text", "json"),
    asks: bool = False,
) -> argparse.ArgumentParser:
    """One command with what all of them have."""
    found: argparse.ArgumentParser = commands.add_parser(
        name, help=does, description=f"{does[0].upper()}{does[1:]}.", epilog=f"Example: reconciler {example}"
    )
    found.set_defaults(command=command)
    found.add_argument("-o", "--output", choices=formats, default="text", help="how to print (default: text)")
    # Suppressed defaults, so that the options may stand before the command as well.
    found.add_argument("--no-color", action="store_true", default=argparse.SUPPRESS, help="no colour")
    found.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
    if asks:
        _add_server(found)
    return found


def _add_server(found: argparse.ArgumentParser) -> None:
    found.add_argument("--server", metavar="URL", help="address of the daemon (RECONCILER_SERVER, RECONCILER_TOKEN)")
    found.add_argument("--config", metavar="FILE", help="settings of the daemon on this machine (RECONCILER_CONFIG)")


def _later(module: str, function: str) -> Command:
    """A command whose module is imported when it runs."""

    def run(arguments: argparse.Namespace, out: Output) -> int:
        import importlib  # noqa: PLC0415 - nothing of a command is loaded before it runs

        found: Command = getattr(importlib.import_module(f"reconciler.cli.{module}"), function)
        return found(arguments, out)

    return run


def _add_offline(commands: Any) -> None:
    """Commands that need no daemon."""
    found = _add(
        commands, "demo", "play the main job on a simulated fleet, with nothing installed", "demo --headless -o json",
        _later("daemon_commands", "demo"),
    )  # fmt: skip
    found.add_argument("--headless", action="store_true", help="no terminal view: plain lines, or JSON at the end")
    found.add_argument("--clusters", type=_count, metavar="N", help="how many clusters (default: 8; 3 if real)")
    found.add_argument(
        "--control-plane", choices=("simulated", "real"), default="simulated",
        help="real: on etcd and kube-apiserver, with a model as Flink operator (make control-plane builds them)",
    )  # fmt: skip
    found.add_argument(
        "--assets", metavar="DIR", help="where kube-apiserver and etcd are (KUBEBUILDER_ASSETS; else those built last)"
    )
    found.add_argument(
        "--scenario", metavar="NAME", help="play up to this step: initial-sync, change, bad-change or drift (default)"
    )
    found.add_argument("--stay", action="store_true", help="afterwards keep the fleet running until Ctrl-C")
    found.add_argument("--log", metavar="FILE", help="write the daemon's log there")

    found = _add(commands, "run", "run the daemon", "run --config reconciler.yaml", _later("daemon_commands", "run"))
    found.add_argument("--config", metavar="FILE", help="settings (RECONCILER_CONFIG)")

    found = _add(commands, "init", "write a small fleet repository", "init my-fleet", _later("file_commands", "init"))
    found.add_argument("directory", metavar="DIR")

    found = _add(
        commands, "validate", "show problems of a fleet repository with file, line and hint", "validate sample-repo",
        _later("file_commands", "validate"),
    )  # fmt: skip
    found.add_argument("path", metavar="PATH", help="a fleet repository, a directory of documents, or one file")

    found = _add(
        commands, "schema", "print the JSON Schema of a kind, for an editor's YAML plugin", "schema RolloutPolicy",
        _later("file_commands", "schema"), formats=("text", "json", "yaml"),
    )  # fmt: skip
    found.add_argument("kind", metavar="KIND", help="Fleet, Cluster, Application, RolloutPolicy or HealthPolicy")

    found = _add(
        commands, "render", "print the manifests that a fleet repository declares",
        "render sample-repo --app orders --cluster eu-west-1a", _later("file_commands", "render"),
        formats=("text", "yaml", "json"),
    )  # fmt: skip
    found.add_argument("path", metavar="PATH")
    found.add_argument("--app", metavar="APP")
    found.add_argument("--cluster", metavar="CLUSTER")

    found = _add(
        commands, "waves", "show which cluster is in which wave, with resolved numbers",
        "waves --policy policies/rollout.yaml --clusters clusters/", _later("file_commands", "waves"),
        formats=("text", "json", "yaml"),
    )  # fmt: skip
    found.add_argument("--policy", required=True, metavar="FILE", help="a RolloutPolicy")
    found.add_argument("--clusters", required=True, metavar="DIR", help="Cluster documents")

    found = _add(
        commands, "plan", "show what a change would do to the fleet", "plan . --from origin/main --to HEAD -o markdown",
        _later("plan_command", "plan"), formats=("text", "json", "markdown"), asks=True,
    )  # fmt: skip
    found.add_argument("path", metavar="PATH", help="a fleet repository under Git")
    found.add_argument("--from", dest="before", required=True, metavar="REV")
    found.add_argument("--to", dest="after", required=True, metavar="REV")
    found.add_argument("--live", action="store_true", help="ask the daemon what is assigned and how the jobs are")


def _add_asking(commands: Any) -> None:
    """Commands that ask a daemon (two of them may judge files instead)."""
    found = _add(
        commands, "diff", "show what differs from what is assigned, per path, with the Flink class",
        "diff orders --cluster eu-west-1a", _later("daemon_commands", "diff"), asks=True,
    )  # fmt: skip
    found.add_argument("app", metavar="APP", nargs="?")
    found.add_argument("--cluster", metavar="CLUSTER")
    found.add_argument(
        "--against", choices=("assigned", "git"), default="assigned", help="compare live with which release"
    )
    found.add_argument("--desired", metavar="FILE", help="compare files instead: what is declared")
    found.add_argument("--live", metavar="FILE", help="compare files instead: what is live")

    found = _add(
        commands, "health", "show the health of live objects, with reason", "health flinkdeployment.yaml",
        _later("daemon_commands", "health"), asks=True,
    )  # fmt: skip
    found.add_argument("what", metavar="FILE|APP", help="a file of live objects, or an application")
    found.add_argument(
        "--policy", metavar="FILE", action="append", help="HealthPolicy documents to judge the file by; may be repeated"
    )
    found.add_argument("--cluster", metavar="CLUSTER")

    for name, does in (
        ("status", "show the whole daemon on one page"),
        ("apps", "list applications"),
        ("clusters", "list clusters"),
    ):
        _add(commands, name, does, name, _later("daemon_commands", name), asks=True)

    found = _add(
        commands, "rollouts", "list rollouts, the newest first", "rollouts --active",
        _later("daemon_commands", "rollouts"), asks=True,
    )  # fmt: skip
    found.add_argument("--app", metavar="APP")
    found.add_argument("--active", action="store_true", help="only those that have not ended")

    found = _add(
        commands, "events", "show the audit log, the newest last", "events --app orders",
        _later("daemon_commands", "events"), asks=True,
    )  # fmt: skip
    found.add_argument("--app", metavar="APP")
    found.add_argument("--after", type=_count, metavar="ID", help="only events newer than this one")
    found.add_argument("--limit", type=_count, default=50, metavar="N")

    found = _add(
        commands, "explain", "say why an application is not deployed: the one gate that blocks",
        "explain orders --cluster eu-west-1a", _later("daemon_commands", "explain"), asks=True,
    )  # fmt: skip
    found.add_argument("app", metavar="APP")
    found.add_argument("--cluster", metavar="CLUSTER")

    found = _add(
        commands, "sync", "look at Git now, and compare everything anew", "sync orders",
        _later("daemon_commands", "sync"), asks=True,
    )  # fmt: skip
    found.add_argument("app", metavar="APP", nargs="?")
    found.add_argument("--reason", default="", help="why, for the audit log")


def _add_rollout(commands: Any) -> None:
    """`rollout VERB ID`."""
    group = commands.add_parser(
        "rollout", help="show or steer one rollout", description="Show or steer one rollout.",
        epilog="Example: reconciler rollout pause orders-1a2b3c4-77f0 --reason 'looks slow'",
    )  # fmt: skip
    verbs = group.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb, does in (
        ("show", "show its waves and targets"),
        ("pause", "start nothing new; what is in flight is observed to its end"),
        ("resume", "go on with a paused rollout"),
        ("abort", "end it where it stands; its releases are not started again by themselves"),
        ("retry", "let the releases of a halted or ended rollout be tried again"),
    ):
        example = f"rollout {verb} orders-1a2b3c4-77f0" + ("" if verb == "show" else " --reason 'asked by ada'")
        found = _add(verbs, verb, does, example, _later("daemon_commands", f"rollout_{verb}"), asks=True)
        found.add_argument("id", metavar="ID", help="its id, or the beginning of it")
        if verb != "show":
            found.add_argument("--reason", default="", help="why, for the audit log")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
