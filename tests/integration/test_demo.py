"""The demo as people run it: a process with an empty home, in an empty directory, that ends by itself or by a signal.

One full performance is played here and everything is asked of its summary; the others end early.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMO = [sys.executable, "-m", "reconciler.cli.main", "demo"]
STEPS = ["initial-sync", "change", "bad-change", "drift"]
WAVES = ["canary", "early", "rest"]
TIMEOUT_S = 240


def environment(directory: Path) -> dict[str, str]:
    """Nothing but paths: of programs, of the package beside these tests, of an empty home and of temporary files."""
    temporary = directory / "tmp"
    temporary.mkdir(exist_ok=True)
    home = directory / "home"
    home.mkdir(exist_ok=True)
    paths = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(home), "TMPDIR": str(temporary)}
    return {**paths, "PYTHONUNBUFFERED": "1"}


def left_behind(directory: Path) -> list[str]:
    """Files, sockets and processes that are still there: a demo's processes all stand in its temporary directory, or
    have it among their arguments."""
    found = [str(path) for path in (directory / "tmp").iterdir()]
    found += [str(path) for path in (directory / "home").iterdir()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().decode("utf-8", "replace")
            place = str((process / "cwd").readlink())
        except (OSError, PermissionError):
            continue  # it has ended meanwhile, or is somebody else's
        if str(directory) in arguments or str(directory) in place:
            found.append(f"{process.name}: {arguments} in {place}")
    return found


def moment(text: str) -> datetime:
    """An RFC 3339 time in UTC."""
    assert text.endswith("Z"), text
    return datetime.fromisoformat(text)


# ---- one whole performance -----------------------------------------------------------------------------------------


def test_the_whole_demo(tmp_path: Path) -> None:
    played = subprocess.run(
        [*DEMO, "--headless", "-o", "json"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert played.returncode == 0, played.stdout + played.stderr
    assert played.stderr == ""
    summary = json.loads(played.stdout)
    assert set(summary) == {"control_plane", "clusters", "applications", "targets", "steps"}
    assert summary["control_plane"] == "simulated"
    assert summary["clusters"] == 8
    assert summary["applications"] >= 12
    assert summary["targets"] >= 40
    steps = {step["name"]: step for step in summary["steps"]}
    assert list(steps) == STEPS
    for step in steps.values():
        assert set(step) == {"name", "revision", "result", "targets_touched", "waves", "wall_s"}
        assert len(step["revision"]) == 40
        assert step["wall_s"] > 0
    check_initial_sync(steps["initial-sync"], summary)
    check_change(steps["change"])
    check_bad_change(steps["bad-change"])
    assert steps["drift"]["result"] == "Repaired"
    assert steps["drift"]["targets_touched"] == 2
    assert steps["drift"]["waves"] == []
    # Git's tip is still the bad commit: the repair was none of its doing.
    assert steps["drift"]["revision"] == steps["bad-change"]["revision"]
    assert len({step["revision"] for step in summary["steps"]}) == 3
    assert left_behind(tmp_path) == []


def check_initial_sync(step: dict[str, Any], summary: dict[str, Any]) -> None:
    """Every application came up in waves, and every target was written."""
    assert step["result"] == "Succeeded"
    assert step["targets_touched"] == summary["targets"]
    assert len({wave["application"] for wave in step["waves"]}) == summary["applications"]
    assert sum(wave["targets"] for wave in step["waves"]) == summary["targets"]
    for application in {wave["application"] for wave in step["waves"]}:
        check_order([wave for wave in step["waves"] if wave["application"] == application])


def check_change(step: dict[str, Any]) -> None:
    """One application, on all eight clusters, in three waves."""
    assert step["result"] == "Succeeded"
    assert step["targets_touched"] == 8
    assert [wave["application"] for wave in step["waves"]] == ["sample/orders"] * 3
    assert [wave["targets"] for wave in step["waves"]] == [2, 3, 3]
    check_order(step["waves"])
    # The real numbers: one target at least was watched for 30, 10 and 5 minutes.
    for wave, bake_s in zip(step["waves"], (1800, 600, 300), strict=True):
        assert (moment(wave["baked_at"]) - moment(wave["healthy_at"])).total_seconds() >= bake_s - 1


def check_order(waves: list[dict[str, Any]]) -> None:
    """Each wave begins after the one before was healthy at the new release and had baked."""
    assert [wave["name"] for wave in waves] == [name for name in WAVES if name in {wave["name"] for wave in waves}]
    before: datetime | None = None
    for wave in waves:
        started, healthy, baked = (moment(wave[name]) for name in ("started_at", "healthy_at", "baked_at"))
        assert started < healthy < baked
        assert before is None or started >= before
        before = baked


def check_bad_change(step: dict[str, Any]) -> None:
    """The first wave was touched and never baked, the others never began."""
    assert step["result"] == "RolledBack"
    assert step["targets_touched"] == 2
    assert [wave["name"] for wave in step["waves"]] == WAVES
    first, *others = step["waves"]
    assert first["started_at"] is not None
    assert first["baked_at"] is None
    for wave in others:
        assert (wave["started_at"], wave["healthy_at"], wave["baked_at"]) == (None, None, None)


# ---- signals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("Reconciler moves", signal.SIGINT),
        ("== Step 1", signal.SIGTERM),
        ("targets as Git wants them", signal.SIGINT),
        (" pushes ", signal.SIGINT),
    ],
)
def test_a_signal_at_any_moment_leaves_nothing(tmp_path: Path, line: str, number: signal.Signals) -> None:
    with subprocess.Popen(
        [*DEMO, "--headless", "--clusters", "3"],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        seen = list(lines_until(process.stdout, line))
        assert line in seen[-1], "".join(seen)
        os.kill(process.pid, number)
        process.stdout.read()
        errors = process.stderr.read()
        assert process.wait(TIMEOUT_S) == 128 + number, errors
    assert errors == ""
    assert left_behind(tmp_path) == []


def lines_until(stream: IO[str], part: str) -> Iterator[str]:
    """Lines up to the one that contains `part`."""
    for line in stream:
        yield line
        if part in line:
            return


def test_whoever_reads_may_go_away(tmp_path: Path) -> None:
    """`reconciler demo --headless | head -1` ends, without a word about it."""
    with subprocess.Popen(
        [*DEMO, "--headless", "--clusters", "3"],
        cwd=tmp_path,
        env=environment(tmp_path) | {"PYTHONIOENCODING": "ascii"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "== Step 1 of 4 ? initial-sync" in list(lines_until(process.stdout, "== Step 1"))[-1]
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(TIMEOUT_S) == 128 + signal.SIGPIPE, errors
    assert errors == ""
    assert left_behind(tmp_path) == []


# ---- wrong use -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["--clusters", "2"], 2, "usage"),
        (["--clusters", "many"], 2, "usage"),
        (["--scenario", "flood"], 2, "unknown-scenario"),
        (["--stay"], 2, "usage"),
        (["--control-plane", "toy"], 2, "usage"),
        (["--assets", "/opt/kubebuilder/bin"], 2, "usage"),
        (["--control-plane", "real", "--clusters", "9"], 2, "usage"),
    ],
)
def test_wrong_use(tmp_path: Path, arguments: list[str], status: int, code: str) -> None:
    refused = subprocess.run(
        [*DEMO, "-o", "json", *arguments], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True
    )
    assert refused.returncode == status
    assert json.loads(refused.stdout)["error"]["code"] == code


def test_without_git_it_says_so(tmp_path: Path) -> None:
    variables = environment(tmp_path) | {"PATH": str(tmp_path)}
    refused = subprocess.run([*DEMO, "--headless"], cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert refused.returncode == 3
    assert "needs the git program" in refused.stderr
    assert left_behind(tmp_path) == []
