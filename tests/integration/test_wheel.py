"""The wheel is complete: its commands work where there is no checkout, on the data that it carries."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, unpacked."""
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory / "unpacked")
    return directory / "unpacked"


def run(unpacked: Path, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`reconciler ARGUMENTS` from the wheel, in an empty directory."""
    code = (
        "import sys, reconciler; from reconciler.cli.main import main;"
        f"assert reconciler.__file__.startswith({str(unpacked)!r}), reconciler.__file__;"
        "sys.exit(main(sys.argv[1:]))"
    )
    # -P: not the current directory; PYTHONPATH comes before the editable install.
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_the_wheel_carries_policies_and_sample(unpacked: Path) -> None:
    for name in ("policies", "sample-repo"):
        here = {path.relative_to(ROOT / name) for path in (ROOT / name).rglob("*") if path.is_file()}
        there = unpacked / "reconciler" / "data" / name
        assert {path.relative_to(there) for path in there.rglob("*") if path.is_file()} == here
    assert not (unpacked / "tests").exists()


def test_commands_work_from_the_wheel(unpacked: Path, tmp_path: Path) -> None:
    sample = unpacked / "reconciler" / "data" / "sample-repo"
    checked = run(unpacked, tmp_path, "validate", str(sample))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    rendered = run(unpacked, tmp_path, "render", str(sample), "--app", "orders", "--cluster", "eu-west-1a")
    assert "kind: FlinkDeployment" in rendered.stdout
    assert run(unpacked, tmp_path, "init", "fleet").returncode == 0
    assert run(unpacked, tmp_path, "validate", "fleet").returncode == 0


def test_the_demo_works_from_the_wheel(unpacked: Path, tmp_path: Path) -> None:
    played = run(unpacked, tmp_path, "demo", "--headless", "--clusters", "3", "--scenario", "initial-sync")
    assert played.returncode == 0, played.stdout + played.stderr
    assert list(tmp_path.iterdir()) == []
