"""Fixtures for all tests: the real control plane, one for the whole run.

Workers of one run share it through a lock and a file that names its directory; each takes a hold, and the supervisor
stops it when the last worker has let go. Tests keep apart by namespaces of their own. Where no control plane was
built these tests are skipped with one line that says how to get one, but in CI (`CI=true`) they fail.
"""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.control_plane import build, server
from tests.control_plane.specimen import SPECIMEN_CRD

# Properties are tried with the same examples everywhere: a failure is one of the change under test.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")

NO_CONTROL_PLANE = "no control plane: run `make control-plane`"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was skipped, and why, in one line per reason."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else str(report.longrepr)
        for report in terminalreporter.stats.get("skipped", [])
    )
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"{count} skipped: {reason}")


def require_assets() -> build.Assets:
    """The control plane's programs, or a skip; in CI a failure."""
    assets = build.locate()
    if assets is None:
        if server.required_by_environment():
            pytest.fail(NO_CONTROL_PLANE, pytrace=False)
        pytest.skip(NO_CONTROL_PLANE)
    return assets


def shared_control_plane(rendezvous: Path, assets: build.Assets) -> server.ControlPlane:
    """Join the run's control plane, or start it when nobody holds one."""
    rendezvous.mkdir(parents=True, exist_ok=True)
    named = rendezvous / "directory"
    with (rendezvous / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        plane = server.attach(Path(named.read_text())) if named.exists() else None
        if plane is None:
            plane = server.start(assets)
            server.install_crd(plane, SPECIMEN_CRD)
            named.write_text(str(plane.directory))
    return plane


@pytest.fixture(scope="session")
def assets() -> build.Assets:
    """The programs, for tests that start control planes of their own."""
    return require_assets()


@pytest.fixture(scope="session")
def control_plane(assets: build.Assets, tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.ControlPlane]:
    """A real kube-apiserver and etcd with the Flink CRDs, shared by the whole run. Without kube-controller-manager."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    with shared_control_plane(base / "control-plane", assets) as plane:
        yield plane
