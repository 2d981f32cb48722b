"""The real control plane: it serves what it should, and nothing of it outlives the tests."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.control_plane import build, server

pytestmark = pytest.mark.controlplane
needs_proc = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")


def processes_of(directory: Path) -> dict[int, str]:
    """Process id and program of everything that was started for this directory."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if any(str(directory) in word for word in words):
                    found[int(entry.name)] = Path(words[0]).name
    return found


def eventually(answers: Callable[[], bool]) -> bool:
    """Whether the question is answered with yes within a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if answers():
            return True
        time.sleep(0.05)
    return False


def test_it_is_the_pinned_version_with_the_flink_crds(control_plane: server.ControlPlane) -> None:
    status, version = server.call(control_plane, "GET", "/version")
    assert status == 200
    if "KUBEBUILDER_ASSETS" not in os.environ:
        assert version["gitVersion"] == f"v{build.KUBERNETES_VERSION}"
    for plural in server.FLINK_RESOURCES:
        assert server.call(control_plane, "GET", f"/apis/flink.apache.org/v1beta1/{plural}")[0] == 200


def test_rbac_decides(control_plane: server.ControlPlane) -> None:
    token = control_plane.service_account_token("default", "nobody")
    nobody = server.ControlPlane(
        control_plane.directory, control_plane.url, {server.ADMINISTRATOR: token}, control_plane.hold
    )
    stranger = server.ControlPlane(
        control_plane.directory,
        control_plane.url,
        {server.ADMINISTRATOR: control_plane.tokens["stranger"]},
        control_plane.hold,
    )
    wrong = server.ControlPlane(
        control_plane.directory, control_plane.url, {server.ADMINISTRATOR: "x"}, control_plane.hold
    )
    assert server.call(control_plane, "GET", "/api/v1/secrets")[0] == 200
    assert server.call(nobody, "GET", "/api/v1/secrets")[0] == 403
    assert server.call(stranger, "GET", "/api/v1/secrets")[0] == 403
    assert server.call(wrong, "GET", "/api/v1/secrets")[0] == 401


@needs_proc
def test_the_last_holder_stops_it(assets: build.Assets) -> None:
    plane = server.start(assets, flink_crds=False)
    other = server.attach(plane.directory)
    assert other is not None
    assert sorted(set(processes_of(plane.directory).values())) == sorted(
        {"etcd", "kube-apiserver", Path(sys.executable).name}
    )
    plane.close()
    assert server.call(other, "GET", "/readyz")[0] == 200, "somebody else still holds it"
    other.close()
    other.close()
    assert eventually(lambda: not processes_of(plane.directory))
    assert not plane.directory.exists()
    assert server.attach(plane.directory) is None


HOLDER = """
import os, sys, time
from tests.control_plane import build, server
plane = server.start(build.locate(), flink_crds=False)
print(plane.directory, flush=True)
time.sleep(600)
"""


@needs_proc
@pytest.mark.parametrize("victim", ["holder", "supervisor"])
@pytest.mark.usefixtures("assets")
def test_no_process_outlives_a_killed_holder_or_supervisor(victim: str) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], cwd=server.CHECKOUT, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        directory = Path(holder.stdout.readline().strip())
        assert directory.name.startswith("control-plane-"), "the holder did not start one"
        running = processes_of(directory)
        assert len(running) == 3
        if victim == "holder":
            holder.kill()
        else:
            (supervisor,) = [pid for pid, name in running.items() if name.startswith("python")]
            os.kill(supervisor, signal.SIGKILL)
        assert eventually(lambda: not processes_of(directory))
        # A killed supervisor cannot clean up.
        shutil.rmtree(directory, ignore_errors=True)
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()


def test_with_controllers_a_deleted_namespace_ends(assets: build.Assets) -> None:
    if assets.controller_manager is None:
        pytest.skip("no kube-controller-manager among the assets")
    with server.start(assets, controller_manager=True, flink_crds=False) as plane:
        body = {"metadata": {"name": "short-lived"}}
        assert server.call(plane, "POST", "/api/v1/namespaces", body)[0] == 201
        assert server.call(plane, "DELETE", "/api/v1/namespaces/short-lived")[0] == 200
        assert eventually(lambda: server.call(plane, "GET", "/api/v1/namespaces/short-lived")[0] == 404)


def test_a_program_that_does_not_start_is_an_error_with_its_log(assets: build.Assets) -> None:
    with pytest.raises(server.ControlPlaneError, match="unknown flag: --no-such-flag"):
        server.start(assets, apiserver_flags=("--no-such-flag",))


def test_the_kubeconfigs_name_no_file(control_plane: server.ControlPlane) -> None:
    config = json.loads(control_plane.kubeconfig_for("viewer").read_text())
    assert sorted(config["clusters"][0]["cluster"]) == ["certificate-authority-data", "server"]
    assert config["users"][0]["user"] == {"token": control_plane.tokens["viewer"]}
