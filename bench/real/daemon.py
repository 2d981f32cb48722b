"""The measured daemon: the shipped package as `reconciler run`, a process of its own that can be killed.

It runs from an installation of its own: a copy of the package whose shipped blast-radius limits are so high that they
never refuse, for a benchmark changes in minutes what those spread over days. Everything else is as it is shipped; write
limits are settings and set out of the way.

    daemon = Daemon(directory, fleet.url, clusters.kubeconfigs, poll="1h")
    daemon.start()
    daemon.sync("app-00007")       # as a webhook would: look at Git now
    daemon.idle()                  # True once nothing is on its way
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.measure import ROOT
from bench.real.process import Usage, usage
from reconciler import __version__
from reconciler.cli.client import Client
from reconciler.cli.output import CommandError
from reconciler.socket_path import socket_path

AGENT = f"reconciler/{__version__}"
UNLIMITED = 1_000_000
#: The highest write limit that the settings take: more than an API server can.
WRITES_MAX = 10_000
_NUMBER = re.compile(r"(: )\d+", re.MULTILINE)


def install(directory: Path) -> Path:
    """A copy of the package with its data, as a wheel has it, and blast-radius limits that never refuse."""
    target = directory / "installation"
    shutil.copytree(ROOT / "reconciler", target / "reconciler", ignore=shutil.ignore_patterns("__pycache__", "data"))
    for name in ("policies", "sample-repo"):
        shutil.copytree(ROOT / name, target / "reconciler" / "data" / name)
    limits = target / "reconciler" / "data" / "policies" / "limits.yaml"
    limits.write_text(_NUMBER.sub(rf"\g<1>{UNLIMITED}", limits.read_text(encoding="utf-8")), encoding="utf-8")
    return target


class Daemon:
    """One daemon with a state directory; it may be started again after it ended or was killed."""

    def __init__(
        self,
        directory: Path,
        repository: str,
        kubeconfigs: Mapping[str, Path],
        *,
        poll: str = "1h",
        resync: str = "1h",
        check: str = "10s",
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.state_dir = directory / "state"
        self._installation = install(directory)
        self._config = directory / "reconciler.yaml"
        self._log = directory / "daemon.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._settings: dict[str, Any] = {
            "stateDir": str(self.state_dir),
            "listen": "none",
            "checkInterval": check,
            "resyncInterval": resync,
            "logLevel": "warning",
            "repositories": [{"name": "fleet", "url": repository, "poll": poll, "impersonate": {"user": "none"}}],
            "clusters": {name: {"kubeconfig": str(path)} for name, path in sorted(kubeconfigs.items())},
            "allow": {"protocols": ["file"]},
            "limits": {"writesPerSecond": WRITES_MAX, "perCluster": WRITES_MAX},
        }

    # ---- the process -------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None, "the daemon was not started"
        return self._process.pid

    def start(self, *, poll: str | None = None, resync: str | None = None) -> float:
        """Start, with another interval if one is given; the moment of it in wall-clock seconds."""
        repository = self._settings["repositories"][0]
        repository["poll"] = poll or repository["poll"]
        self._settings["resyncInterval"] = resync or self._settings["resyncInterval"]
        self._config.write_text(json.dumps(self._settings))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RECONCILER_")}
        command = [sys.executable, "-P", "-m", "reconciler.cli.main", "run", "--config", str(self._config)]
        started_s = time.time()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**environment, "PYTHONPATH": str(self._installation)}
            )
        return started_s

    def kill(self) -> None:
        """kill -9. May be called twice."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)

    def stop(self) -> None:
        """End it as a service manager does. May be called twice, and after a kill."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()

    def usage(self) -> Usage:
        """What the process has used so far."""
        return usage(self.pid)

    def log(self) -> str:
        """What it logged: warnings and worse."""
        return self._log.read_text(encoding="utf-8")

    # ---- asking ------------------------------------------------------------------------------------------------

    def _client(self) -> Client:
        return Client("the measured daemon", socket=socket_path(self.state_dir))

    def sync(self, application: str) -> float:
        """Tell it to look at Git now, as a webhook would; the moment before, in wall-clock seconds."""
        asked_s = time.time()
        self._client().post("/api/v1/sync", {"app": application, "actor": "bench"})
        return asked_s

    def ask(self, path: str, **parameters: str) -> Any:
        """A GET of its API. Raises CommandError where it does not answer."""
        return self._client().get(path, **parameters)

    def metric(self, name: str) -> float:
        """The sum of all samples of a counter."""
        connection = http.client.HTTPConnection("localhost", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with closing(connection):
            connection.sock.connect(str(socket_path(self.state_dir)))
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        lines = [line for line in text.splitlines() if re.match(rf"{name}[ {{]", line)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def read(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of its store, read beside it: what is asked for often must not cost the daemon anything. [] as long as
        there is no store."""
        path = self.state_dir / "reconciler.db"
        if not path.exists():
            return []
        address = f"file:{urllib.parse.quote(str(path))}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=10)) as connection:
            try:
                return connection.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []
                raise

    def until(self, condition: Callable[[], bool], within_s: float, every_s: float = 0.1) -> None:
        """Wait for `condition`. Raises RuntimeError when it does not come, or the daemon ended."""
        deadline_s = time.monotonic() + within_s
        while not condition():
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError(f"the daemon ended with {self._process.returncode}: {self.log()[-2000:]}")
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"not so within {within_s:.0f} s: {self.log()[-2000:]}")
            time.sleep(every_s)

    def ready(self, clusters: int, within_s: float = 120.0) -> None:
        """Wait until it answers and has heard from so many clusters."""
        self.until(lambda: self._heard() >= clusters, within_s)

    def _heard(self) -> int:
        try:
            found = self.ask("/api/v1/status")["clusters"]
        except CommandError:
            return -1
        return int(found.get("Reachable", 0))

    def settled(self, targets: int, active_max: int = 0) -> bool:
        """True if so many targets have a release that baked, nothing is to be written and no more rollouts than
        `active_max` go on."""
        active = self.read("SELECT count(*) FROM rollout WHERE state IN ('Active', 'Paused', 'Halted', 'RollingBack')")
        if not active or active[0][0] > active_max:
            return False
        pending = self.read("SELECT count(*) FROM intent WHERE state = 'pending'")
        baked = self.read("SELECT count(*) FROM assignment WHERE digest = baked")
        return bool(not pending[0][0] and baked[0][0] >= targets)

    def until_settled(self, targets: int, within_s: float, active_max: int = 0) -> None:
        """Wait until it is settled."""
        self.until(lambda: self.settled(targets, active_max), within_s, every_s=0.25)
