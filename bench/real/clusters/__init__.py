"""Simulated clusters: namespaces of one API server, each seen as a cluster of its own through a small proxy.

`main.go` beside this file is the proxy. What the daemon asks of a whole cluster it asks of that cluster's namespace,
so that no watch of one carries the events of another. The bare loops go the same way.

    with SimulatedClusters(plane, directory, ["c0000", "c0001"]) as clusters:
        clusters.kubeconfigs["c0000"]      # a file with the address https://127.0.0.1:41234/c0000
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.real.plane import Plane
from reconciler.demo.control_plane.assets import cache_root
from tests.control_plane import build, server

HERE = Path(__file__).resolve().parent
PROGRAM = "clusters"


def names(count: int) -> list[str]:
    """Names of `count` clusters."""
    return [f"c{number:04d}" for number in range(count)]


def program() -> Path:
    """The proxy, built where it is not there yet. Raises BuildError."""
    content = b"".join((HERE / name).read_bytes() for name in ("go.mod", "main.go"))
    target = cache_root().parent / "bench" / hashlib.sha256(content).hexdigest()[:16] / PROGRAM
    if target.exists():
        return target
    go = shutil.which("go")
    if go is None:
        raise build.BuildError("no `go` on PATH: install Go 1.23 or newer (it builds the proxy of simulated clusters)")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="building-", dir=target.parent))
    try:
        environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
        command = [go, "build", "-trimpath", "-o", str(scratch / PROGRAM), "."]
        done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise build.BuildError(f"the proxy of simulated clusters does not build: {done.stderr.strip()[-400:]}")
        (scratch / PROGRAM).rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


class SimulatedClusters:
    """The proxy, the namespaces and a kubeconfig for each. `silent` clusters have an address that accepts connections
    and never answers."""

    def __init__(self, plane: Plane, directory: Path, clusters: Sequence[str], silent: Sequence[str] = ()) -> None:
        self.names = [name for name in clusters if name not in silent]
        self.silent = list(silent)
        self.kubeconfigs: dict[str, Path] = {}
        control = plane.control
        certificates = control.ca_file.parent
        command = [str(program()), "-upstream", control.url, "-certificate", str(control.ca_file)]
        command += ["-key", str(certificates / "apiserver.key")]
        self._proxy = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._proxy.stdout is not None
        self.address = self._proxy.stdout.readline().strip()
        self._hole = socket.create_server(("127.0.0.1", 0), backlog=4096)
        hole = f"https://127.0.0.1:{self._hole.getsockname()[1]}"
        authority = {"certificate-authority-data": base64.b64encode(control.ca_file.read_bytes()).decode()}
        (directory / "kubeconfigs").mkdir(exist_ok=True)
        for name in clusters:
            address = hole if name in silent else self.address
            path = directory / "kubeconfigs" / f"{name}.yaml"
            token = control.tokens[server.ADMINISTRATOR]
            server.write_kubeconfig(path, f"{address}/{name}", server.ADMINISTRATOR, token, authority)
            path.chmod(0o600)
            self.kubeconfigs[name] = path
            for namespace in (name, floor_namespace(name)):
                status, answer = server.call(control, "POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
                assert status in (201, 409), answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hole.close()
        assert self._proxy.stdin is not None
        assert self._proxy.stdout is not None
        self._proxy.stdin.close()
        self._proxy.stdout.close()
        self._proxy.wait(30)


def floor_namespace(cluster: str) -> str:
    """The namespace on the same API server where the bare loop writes what `cluster` gets."""
    return f"floor-{cluster}"
