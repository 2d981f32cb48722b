"""The demo on real control planes, as people run it; and that nothing of them is left, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.control_plane import build
from tests.control_plane.test_server import eventually, needs_proc
from tests.integration.test_demo import DEMO, STEPS, WAVES, check_order, environment, left_behind, lines_until

REAL = [*DEMO, "--headless", "--control-plane", "real"]
TIMEOUT_S = 280


@pytest.fixture
def binaries(assets: build.Assets) -> list[str]:
    """The options that name the programs: the demo's home is empty, so there is no cache in it."""
    return ["--assets", str(assets.apiserver.parent)]


def with_crds(directory: Path, assets: build.Assets) -> dict[str, str]:
    """The environment of the demo, with a cache that holds the Flink operator's CRDs and nothing else."""
    cache = directory / "cache" / "reconciler" / "control-plane"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / assets.crds[0].parent.name).symlink_to(assets.crds[0].parent)
    return environment(directory) | {"XDG_CACHE_HOME": str(directory / "cache")}


@pytest.mark.controlplane
def test_all_steps(tmp_path: Path, assets: build.Assets, binaries: list[str]) -> None:
    played = subprocess.run(
        [*REAL, *binaries, "-o", "json"],
        cwd=tmp_path,
        env=with_crds(tmp_path, assets),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert played.returncode == 0, played.stdout + played.stderr
    assert played.stderr == ""
    summary = json.loads(played.stdout)
    assert summary["control_plane"] == "real"
    assert summary["clusters"] == 3
    steps = {step["name"]: step for step in summary["steps"]}
    assert list(steps) == STEPS
    results = {name: (step["result"], step["targets_touched"]) for name, step in steps.items()}
    assert results == {
        "initial-sync": ("Succeeded", summary["targets"]),
        "change": ("Succeeded", 3),
        "bad-change": ("RolledBack", 1),
        "drift": ("Repaired", 2),
    }
    check_waves(steps["change"]["waves"], steps["bad-change"]["waves"])
    assert left_behind(tmp_path) == []


def check_waves(change: list[dict[str, Any]], bad_change: list[dict[str, Any]]) -> None:
    """One cluster a wave, in order; the bad change never left its first."""
    assert [(wave["name"], wave["targets"]) for wave in change] == [(name, 1) for name in WAVES]
    check_order(change)
    assert [wave["started_at"] is not None for wave in bad_change] == [True, False, False]
    assert [wave["baked_at"] for wave in bad_change] == [None] * 3


@contextmanager
def playing(directory: Path, variables: dict[str, str], arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """The demo, while it runs; it is killed at the end if it still does."""
    with subprocess.Popen(
        [*REAL, *arguments],
        cwd=directory,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@needs_proc
@pytest.mark.controlplane
@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("are started", signal.SIGINT),  # nothing answers yet
        ("targets as Git wants them", signal.SIGTERM),
    ],
)
def test_signals(tmp_path: Path, assets: build.Assets, binaries: list[str], line: str, number: signal.Signals) -> None:
    with playing(tmp_path, with_crds(tmp_path, assets), binaries) as process:
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


@needs_proc
@pytest.mark.controlplane
def test_killed(tmp_path: Path, assets: build.Assets, binaries: list[str]) -> None:
    """Nobody can tidy up after kill -9 but those who are told by the kernel: the control planes end all the same."""
    with playing(tmp_path, with_crds(tmp_path, assets), binaries) as process:
        assert process.stdout is not None
        assert "== Step 1" in list(lines_until(process.stdout, "== Step 1"))[-1]
        assert any("kube-apiserver" in entry for entry in left_behind(tmp_path))
        process.kill()
        process.wait()
    assert eventually(lambda: only_ours(tmp_path))


@needs_proc
@pytest.mark.controlplane
def test_a_control_plane_that_dies(tmp_path: Path, assets: build.Assets, binaries: list[str]) -> None:
    """The demo cannot go on: it says so in one line, and the others end with it."""
    with playing(tmp_path, with_crds(tmp_path, assets), binaries) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "== Step 1" in list(lines_until(process.stdout, "== Step 1"))[-1]
        victim = next(entry for entry in left_behind(tmp_path) if "/kube-apiserver\0" in entry)
        os.kill(int(victim.partition(":")[0]), signal.SIGKILL)
        process.stdout.read()
        (line,) = process.stderr.read().splitlines()
        assert process.wait(TIMEOUT_S) == 3
    assert "the controllers' model on" in line
    assert left_behind(tmp_path) == []


def only_ours(directory: Path) -> bool:
    """True if no more is left than the demo's own directory."""
    return all(Path(entry).name.startswith("reconciler-demo-") for entry in left_behind(directory))


# ---- without the programs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        ([], {}, "no kube-apiserver and etcd on this machine: run `make control-plane`"),
        (["--assets", "."], {}, "--assets . has no kube-apiserver and etcd"),
        ([], {"KUBEBUILDER_ASSETS": "."}, "KUBEBUILDER_ASSETS . has no kube-apiserver and etcd"),
        (["--assets", "bin"], {}, "the Flink operator's CRDs are neither in"),
    ],
)
def test_what_is_missing(tmp_path: Path, arguments: list[str], variables: dict[str, str], said: str) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("kube-apiserver", "etcd"):
        (tmp_path / "bin" / name).touch()
    refused = subprocess.run(
        [*REAL, *arguments], cwd=tmp_path, env=environment(tmp_path) | variables, capture_output=True, text=True
    )
    assert refused.returncode == 3
    assert refused.stdout == ""
    (line,) = refused.stderr.splitlines()
    assert said in line
    assert left_behind(tmp_path) == []
