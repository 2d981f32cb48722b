"""The command line: exit statuses, error shapes, imports, help. What each command says is tested where it is made."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from reconciler.cli import views
from reconciler.cli.client import Client, find_client
from reconciler.cli.main import main, parser
from reconciler.cli.output import CommandError, Output
from reconciler.resources import sample_directory
from reconciler.socket_path import socket_path

SAMPLE = str(sample_directory())
POLICY = str(sample_directory() / "policies" / "rollout.yaml")
CLUSTERS = str(sample_directory() / "clusters")
BROKEN = "apiVersion: reconciler.dev/v1alpha1\nkind: Fleet\nmetadata: {name: x}\nspec: {clusters: [}\n"
POD = """\
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: b}
status: {phase: PHASE, conditions: [{type: Ready, status: "READY"}]}
"""
COMMANDS = (
    "demo", "run", "init", "validate", "render", "plan", "diff", "health", "waves", "status", "apps", "clusters",
    "rollouts", "events", "explain", "sync", "rollout", "schema",
)  # fmt: skip


def ran(*arguments: str) -> tuple[int, str, str]:
    """(exit status, standard output, standard error) of a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(arguments)
    return status, out.getvalue(), err.getvalue()


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a broken fleet, pods well and unwell, and no daemon."""
    for name in ("RECONCILER_SERVER", "RECONCILER_CONFIG", "RECONCILER_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RECONCILER_STATE_DIR", str(tmp_path / "nowhere"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "fleet.yaml").write_text(BROKEN)
    (tmp_path / "broken.yaml").write_text("kind: [\n")
    (tmp_path / "well.yaml").write_text(POD.replace("PHASE", "Running").replace("READY", "True"))
    (tmp_path / "failed.yaml").write_text(POD.replace("PHASE", "Failed").replace("READY", "False"))
    (tmp_path / "two.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: '2'}\n")
    (tmp_path / "one.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: '1'}\n")
    (tmp_path / "widget.yaml").write_text(WIDGET)
    (tmp_path / "widgets.yaml").write_text(WIDGETS)
    return tmp_path


def test_health_by_a_policy_of_one_s_own(files: Path) -> None:
    del files
    status, out, _ = ran("health", "widget.yaml", "--policy", "widgets.yaml")
    assert status == 1
    assert out == "Degraded     Widget.example.org a  Broken: no disk\n"


WIDGET = "apiVersion: example.org/v1\nkind: Widget\nmetadata: {name: a}\nstatus: {phase: Failed, why: no disk}\n"
WIDGETS = """\
apiVersion: reconciler.dev/v1alpha1
kind: HealthPolicy
metadata: {name: widgets}
spec:
  match: [{group: example.org, kind: Widget}]
  rules:
  - {health: Degraded, when: object.status.phase == 'Failed', reason: Broken, messageExpression: object.status.why}
"""


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["validate", SAMPLE], 0),
        (["validate", "broken"], 1),
        (["validate", "nowhere"], 2),
        (["render", SAMPLE, "--app", "orders", "--cluster", "eu-west-1a"], 0),
        (["render", "broken"], 1),
        (["render", SAMPLE, "--app", "ordres"], 2),
        (["render", SAMPLE, "--cluster", "mars"], 2),
        (["waves", "--policy", POLICY, "--clusters", CLUSTERS], 0),
        (["waves", "--policy", "broken.yaml", "--clusters", CLUSTERS], 1),
        (["waves", "--policy", "nowhere", "--clusters", CLUSTERS], 2),
        (["waves"], 2),
        (["diff", "--desired", "one.yaml", "--live", "one.yaml"], 0),
        (["diff", "--desired", "one.yaml", "--live", "two.yaml"], 1),
        (["diff", "--desired", "one.yaml"], 2),
        (["diff", "--desired", "one.yaml", "--live", "nowhere.yaml"], 2),
        (["diff", "--desired", "one.yaml", "--live", "broken.yaml"], 3),
        (["diff"], 3),
        (["schema", "HealthPolicy"], 0),
        (["schema", "HealthPolice"], 2),
        (["health", "well.yaml"], 0),
        (["health", "failed.yaml"], 1),
        (["health", "nowhere.yaml"], 2),
        (["health", "broken.yaml"], 3),
        (["health", "orders"], 3),
        (["health", "widget.yaml"], 0),
        (["health", "widget.yaml", "--policy", "widgets.yaml"], 1),
        (["health", "widget.yaml", "--policy", "one.yaml"], 3),
        (["health", "widget.yaml", "--policy", "nowhere.yaml"], 2),
        (["health", "orders", "--policy", "widgets.yaml"], 2),
        (["init", "new"], 0),
        (["init", "."], 2),
        (["plan", "broken", "--from", "a", "--to", "b"], 2),
        (["run", "--config", "nowhere.yaml"], 3),
        (["status"], 3),
        (["apps"], 3),
        (["clusters"], 3),
        (["rollouts"], 3),
        (["events"], 3),
        (["explain", "orders"], 3),
        (["explain"], 2),
        (["sync"], 3),
        (["rollout", "show", "x"], 3),
        (["rollout", "pause", "x"], 3),
        (["rollout"], 2),
        (["status", "--server", "ftp://x"], 2),
        (["status", "--server", "http://127.0.0.1:1"], 3),
        (["status", "--config", "nowhere.yaml"], 3),
        (["stauts"], 2),
        ([], 2),
        (["status", "--nonsense"], 2),
        (["status", "-o", "xml"], 2),
        (["events", "--limit", "many"], 2),
    ],
    ids=lambda value: " ".join(value).replace(SAMPLE, "SAMPLE") if isinstance(value, list) else str(value),
)
def test_exit_status_and_error_shape(files: Path, arguments: Sequence[str], status: int) -> None:
    del files
    found, out, err = ran(*arguments)
    assert found == status, out + err
    if status in (2, 3):
        # One line on standard error, nothing on standard output.
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith("reconciler: ")
    if "-o" not in arguments and (status != 0 or arguments[0] != "init"):
        found, out, err = ran(*arguments, "-o", "json")
        assert (found, err) == (status, "")
        document = json.loads(out)
        if status in (2, 3):
            assert list(document) == ["error"]
            assert list(document["error"]) == ["code", "message", "hint"]
            assert document["error"]["message"]


def test_without_a_daemon_it_is_said(files: Path) -> None:
    _, _, err = ran("status")
    assert f"no daemon is running at {files / 'nowhere'}" in err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"Example: reconciler {command}" in shown
    if command != "rollout":
        assert "--output" in shown
    assert "--no-color" in shown or command == "rollout"


def test_the_help_names_all_commands() -> None:
    for command in COMMANDS:
        assert f"\n    {command} " in parser().format_help()


@pytest.mark.parametrize("arguments", [["--help"], ["validate", SAMPLE], ["waves", "--help"]], ids=" ".join)
def test_what_needs_no_daemon_loads_nothing_of_it(arguments: Sequence[str]) -> None:
    heavy = ("kubernetes", "sqlalchemy", "aiohttp", "prometheus_client", "apscheduler", "alembic", "reconciler.sim")
    script = (
        "import sys\nfrom reconciler.cli.main import main\n"
        f"try:\n    main({list(arguments)!r})\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[]"


def test_an_unexpected_error_is_one_line_and_a_traceback_with_debug(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del files

    def broken(*_: object) -> None:
        raise ZeroDivisionError("of\nsorts")

    monkeypatch.setattr("reconciler.cli.offline.validate", broken)
    status, out, err = ran("validate", SAMPLE)
    assert (status, out) == (3, "")
    assert err == "reconciler: ZeroDivisionError: of sorts (--debug shows where)\n"
    assert "Traceback" in ran("--debug", "validate", SAMPLE)[2]


@pytest.mark.parametrize(
    ("server", "config", "environ", "expected"),
    [
        ("http://a:1", "FILE", {"RECONCILER_SERVER": "http://b:1"}, "http://a:1"),
        (None, "FILE", {"RECONCILER_SERVER": "http://b:1", "RECONCILER_CONFIG": "OTHER"}, "http://b:1"),
        (None, "FILE", {}, "from-file"),
        (None, None, {"RECONCILER_CONFIG": "FILE"}, "from-file"),
        (None, None, {"RECONCILER_STATE_DIR": "/elsewhere"}, "/elsewhere"),
        (None, None, {}, "/var/lib/reconciler"),
    ],
)
def test_where_the_daemon_is_looked_for(
    tmp_path: Path, server: str | None, config: str | None, environ: dict[str, str], expected: str
) -> None:
    file = tmp_path / "reconciler.yaml"
    file.write_text(f"stateDir: {tmp_path}/from-file\n")
    given = {name: value.replace("FILE", str(file)) for name, value in environ.items()}
    client = find_client(server, str(file) if config else None, given)
    assert client.where.endswith(expected)
    if not expected.startswith("http"):
        assert client.socket == socket_path(Path(client.where))


def test_a_file_name_that_is_no_utf_8_is_a_warning(files: Path) -> None:
    ran("init", "fleet")
    fleet = os.fsencode(files / "fleet")
    with open(fleet + b"/\xff\xfe.txt", "wb") as file:
        file.write(b"x")
    status, out, err = ran("validate", "fleet", "-o", "json")
    assert (status, err) == (0, "")
    (problem,) = json.loads(out)["problems"]
    assert (problem["file"], problem["severity"], problem["code"]) == ("\\xff\\xfe.txt", "warning", "unsafe-path")
    assert ran("render", "fleet")[0] == 0
    # Where documents are read from, it is an error.
    os.rename(fleet + b"/\xff\xfe.txt", fleet + b"/apps/\xff.yaml")
    status, out, _ = ran("validate", "fleet", "-o", "json")
    assert (status, [problem["severity"] for problem in json.loads(out)["problems"]]) == (1, ["error"])
    # Where there is no fleet.yaml, and in a directory of clusters, it is read like any other.
    (files / "fleet" / "fleet.yaml").unlink()
    os.rename(fleet + b"/apps/\xff.yaml", fleet + b"/clusters/\xff.yaml")
    status, out, err = ran("validate", "fleet", "-o", "json")
    assert (status, err) == (1, "")
    assert "clusters/\\xff.yaml" in [problem["file"] for problem in json.loads(out)["problems"]]
    status, _, err = ran("waves", "--policy", "fleet/policies/rollout.yaml", "--clusters", "fleet/clusters")
    assert (status, "FileNotFoundError" in err) == (1, False)


def test_each_mistake_in_the_settings_has_a_line(files: Path) -> None:
    (files / "reconciler.yaml").write_text("stateDir: state\nlisten: nowhere\nchekInterval: 10s\nrepositories: []\n")
    status, out, err = ran("run", "--config", "reconciler.yaml")
    assert (status, out) == (3, "")
    assert [line.partition(": error: ")[0] for line in err.splitlines()] == [
        "reconciler.yaml:2:1",
        "reconciler.yaml:3:1",
        "reconciler: 2 errors",
    ]
    assert "did you mean 'checkInterval'?" in err
    status, out, err = ran("run", "--config", "reconciler.yaml", "-o", "json")
    assert (status, err) == (3, "")
    error = json.loads(out)["error"]
    assert [problem["line"] for problem in error["problems"]] == [2, 3]
    assert error["message"].startswith("reconciler.yaml:2:1: ")


def test_status_says_once_what_many_wait_for() -> None:
    stream = io.StringIO()
    wait = {"reason": "ClusterUnreachable", "message": "cluster eu does not answer", "unit": "application:sample/x"}
    found = {
        "applications": 9, "targets": {"total": 9, "synced": 0, "healthy": 0, "states": {"Unreachable": 9}},
        "clusters": {"total": 1, "Unreachable": 1}, "sources": [], "rollouts": [], "outbox_backlog": 0,
        "waits": [{**wait, "subject": f"sample/a{number}@eu"} for number in range(9)],
    }  # fmt: skip
    views.status(Output(stream=stream), found)
    assert stream.getvalue().count("cluster eu does not answer") == 1
    assert "sample/a3@eu and 5 more" in stream.getvalue()


def test_something_else_that_listens_is_no_daemon(tmp_path: Path) -> None:
    script = (
        "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\ns.listen()\n"
        "print('up', flush=True)\nc, _ = s.accept()\nc.recv(1000)\n"
        "c.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\n<html>')\nc.close()\n"
    )
    path = tmp_path / "s"
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"up\n"
        with pytest.raises(CommandError) as refused:
            Client("here", socket=path).get("/api/v1/status")
        other.wait(10)
    assert (refused.value.status, refused.value.code) == (3, "not-a-daemon")


def test_tables_are_aligned_and_clean() -> None:
    stream = io.StringIO()
    Output(stream=stream).table(("A", "LONGER"), [("one", "x"), ("\x1b[31mtwo\n", None)], "  ")
    heads, first, second = stream.getvalue().splitlines()
    assert heads.index("LONGER") == first.index("x") == second.index("-")
    assert "\x1b" not in second
    coloured = io.StringIO()
    Output(colour=True, stream=coloured).table(("A", "B"), [("Healthy", "x")])
    assert "\x1b[32mHealthy\x1b[0m" in coloured.getvalue()
