"""`reconciler demo`: play the main job on a simulated fleet, and say by the exit status whether it went as it was to.

Exit status: 0 every step that was played ended as it was to end; 1 one did not; 2 wrong use; 3 it could not be played
(no git, no control plane); 130 and 143 a signal. A signal ends it at any moment: nothing of it is left, no process, no
socket, no directory.

    reconciler demo                                 the view on a terminal, lines elsewhere
    reconciler demo --headless -o json              the summary, and nothing else on standard output
    reconciler demo --scenario change --stay        up to this step; then the fleet goes on running for other commands
    reconciler demo --control-plane real            on real kube-apiservers
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import logging
import os
import signal
import sys
from pathlib import Path

from rich.console import Console

from reconciler.bootstrap import raise_file_limit
from reconciler.cli.output import DONE, FAILED, FOUND, USAGE, CommandError
from reconciler.demo.control_plane.assets import AssetsMissingError, find
from reconciler.demo.control_plane.plane import ControlPlaneError
from reconciler.demo.fleet import SampleError
from reconciler.demo.ground import REAL
from reconciler.demo.outcome import Summary
from reconciler.demo.play import CLUSTERS, REAL_CLUSTERS, REAL_CLUSTERS_MAX, Program, View, perform
from reconciler.demo.real_cluster import HandRefusedError
from reconciler.demo.repository import GitFailedError
from reconciler.demo.stage import StageFailedError
from reconciler.demo.steps import STEPS
from reconciler.demo.view import LineView, NoView, TerminalView
from reconciler.shell.logs import configure

EXIT_BY_SIGNAL = 128
#: Ctrl-C, a polite kill, and the terminal going away.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: After this the process is ended whatever still runs: nobody waits long after Ctrl-C. Real control planes may take
#: longer to end in order on a busy machine; they do so also without us.
LAST_RESORT_S, LAST_RESORT_REAL_S = 8, 30


class _SignalledError(BaseException):
    """A signal ends the performance."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


def main(arguments: argparse.Namespace) -> int:
    """Play; the exit status."""
    program = _program(arguments)
    as_json = arguments.output == "json"
    _configure_log(arguments.log)
    raise_file_limit()
    view = _view(headless=arguments.headless or as_json, silent=as_json, colour=not arguments.no_color)
    try:
        summary = asyncio.run(_until_signalled(program, view))
    except _SignalledError as error:
        return EXIT_BY_SIGNAL + error.number
    except SampleError as error:
        raise CommandError(USAGE, "usage", str(error)) from error
    except BrokenPipeError:
        raise  # whoever read the lines has seen enough
    except (ControlPlaneError, GitFailedError, HandRefusedError, StageFailedError, OSError) as error:
        raise CommandError(FAILED, "demo-failed", str(error), "--log FILE shows what the daemon said") from error
    finally:
        if isinstance(view, TerminalView):
            view.stop()
    if as_json:
        print(json.dumps(summary.as_json(), indent=2))  # noqa: T201 - this is where commands print
    return DONE if summary.succeeded else FOUND


def _program(arguments: argparse.Namespace) -> Program:
    last = arguments.scenario or ""
    if last and last not in STEPS:
        raise CommandError(USAGE, "unknown-scenario", f"there is no scenario {last!r}", f"one of {', '.join(STEPS)}")
    if arguments.stay and arguments.output == "json":
        raise CommandError(USAGE, "usage", "--stay goes on until Ctrl-C: there is no moment to print JSON at")
    if arguments.control_plane != REAL:
        if arguments.assets is not None:
            raise CommandError(USAGE, "usage", "--assets is for --control-plane real")
        return Program(CLUSTERS if arguments.clusters is None else arguments.clusters, last, stay=arguments.stay)
    clusters = REAL_CLUSTERS if arguments.clusters is None else arguments.clusters
    if clusters > REAL_CLUSTERS_MAX:
        most = f"at most {REAL_CLUSTERS_MAX} real control planes are started"
        raise CommandError(USAGE, "usage", f"{most}, not {clusters}", "simulated clusters can be many more")
    try:
        assets = find(None if arguments.assets is None else Path(arguments.assets))
    except AssetsMissingError as error:
        raise CommandError(FAILED, "control-plane-missing", str(error)) from error
    return Program(clusters, last, stay=arguments.stay, assets=assets)


def _configure_log(path: str | None) -> None:
    """The daemon's log goes to a file or nowhere: standard output and the view belong to the audience."""
    stream = Path(path or os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open until the process ends
    configure(log_format="text", level="info", stream=stream)
    if path is None:
        logging.disable(logging.CRITICAL)


def _view(*, headless: bool, silent: bool, colour: bool) -> View:
    if silent:
        return NoView()
    console = Console(no_color=not colour, highlight=False)
    if headless or not console.is_terminal or console.is_dumb_terminal:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a stream that knows ASCII only gets what it can show
        return LineView(sys.stdout)
    return TerminalView(console)


async def _until_signalled(program: Program, view: View) -> Summary:
    """Perform, unless a signal comes first: then everything is taken down again, and _SignalledError says which."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    received: list[int] = []

    def stop(number: int) -> None:
        if not received:
            # Should anything hang while it is taken down, the alarm's default action ends the process.
            signal.alarm(LAST_RESORT_S if program.assets is None else LAST_RESORT_REAL_S)
            task.cancel()
        received.append(number)

    for number in SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        return await perform(program, view)
    except asyncio.CancelledError:
        if not received:
            raise
        raise _SignalledError(received[0]) from None
    finally:
        if received:
            signal.alarm(0)
        for number in SIGNALS:
            loop.remove_signal_handler(number)
