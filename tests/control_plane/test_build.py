"""Building and finding the control plane: what happens where a tool is missing or a download is not what was pinned."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.demo.control_plane.assets import FLINK_CRD_FILES, PROGRAMS, cache_root, find
from tests.control_plane import build


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, an empty PATH (its directory is returned) and no assets named."""
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return tools


def fake_program(path: Path, script: str = "exit 0") -> None:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def failure(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line a failing `make control-plane` prints."""
    assert build.main() == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.usefixtures("bare_machine")
def test_without_go_one_line_says_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    line = failure(capsys)
    assert "install Go" in line
    assert "KUBEBUILDER_ASSETS" in line
    assert build.locate() is None


def test_without_maven_one_line_says_what_to_install(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("kube-apiserver", "etcd"):
        fake_program(bare_machine / "assets" / name)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(bare_machine / "assets"))
    assert "install Maven" in failure(capsys)


def test_named_assets_that_are_not_there(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(bare_machine))
    assert "has no kube-apiserver and etcd" in failure(capsys)


def test_another_artifact_than_the_pinned_one_is_refused(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("kube-apiserver", "etcd"):
        fake_program(bare_machine / "assets" / name)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(bare_machine / "assets"))
    name = f"flink-kubernetes-operator-api-{build.FLINK_OPERATOR_VERSION}.jar"
    fake_program(
        bare_machine / "mvn",
        f'for word; do case "$word" in -DoutputDirectory=*) echo x > "${{word#*=}}/{name}";; esac; done',
    )
    line = failure(capsys)
    assert "has sha256" in line
    assert build.FLINK_API_SHA256 in line
    assert build.locate() is None, "nothing of it was kept"


def test_the_cache_is_named_after_the_pins(bare_machine: Path) -> None:
    directory = build.binaries_directory()
    assert directory.is_relative_to(bare_machine.parent / "cache")
    assert directory.name == "bin"
    assert len(directory.parent.name) == 16


def test_what_was_built_last_is_found(bare_machine: Path) -> None:
    """The package knows nothing of a checkout's pins: it takes the newest whole one, and the CRDs beside it first."""
    for number, (name, programs) in enumerate((("old", PROGRAMS), ("new", PROGRAMS), ("half", PROGRAMS[:1]))):
        binaries = cache_root() / name / "bin"
        for program in programs:
            fake_program(binaries / program)
        os.utime(binaries, (number, number))
    for crd in FLINK_CRD_FILES:
        fake_program(bare_machine / "named" / crd)
        fake_program(cache_root() / "new" / "bin" / crd)
    found = find()
    assert found.apiserver == cache_root() / "new" / "bin" / "kube-apiserver"
    assert found.crds[0].parent == found.etcd.parent
    assert found.controller_manager is None
    for program in PROGRAMS:
        fake_program(bare_machine / "named" / program)
    assert find(bare_machine / "named").etcd == bare_machine / "named" / "etcd"
