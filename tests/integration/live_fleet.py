"""A fleet for tests of the real process: simulated clusters over HTTP, a real Git repository, a settings file.

The clusters live in a thread of their own with a loop of its own, on the machine's clock and in a hurry; the daemon is
`python -m reconciler.cli.main run` in another process, and can be killed.

    with LiveFleet(tmp_path, ["a1", "b1"]) as fleet:
        fleet.commit(image="orders:1")
        with fleet.daemon() as daemon:
            fleet.until(lambda: fleet.image("a1") == "orders:1")
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import yaml

from reconciler.bootstrap import WallClock
from reconciler.cli.main import main
from reconciler.sim.behaviour import Behaviours, Timings
from reconciler.sim.cluster import SimCluster, intercept_all
from reconciler.sim.http import ConnectionDropped, HttpFace
from reconciler.sim.store import Event, Key
from tests.integration.git_repository import GitRepository

FAST = Timings(
    react_s=0.02,
    stop_s=0.05,
    savepoint_s=0.05,
    submit_s=0.02,
    deploy_s=0.1,
    start_s=0.1,
    crash_after_s=0.25,
    restart_s=0.25,
    snapshot_s=0.1,
    delete_s=0.05,
    ready_s=0.1,
    complete_s=0.1,
)
RINGS = {"a": "canary", "b": "early", "c": "rest"}
POLICY = """\
apiVersion: reconciler.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: quick}
spec:
  waves:
  - {name: canary, select: {clusters: {ring: canary}}, bake: 500ms, maxConcurrent: 1, maxFailures: 0, maxUnreachable: 0}
  - {name: rest, size: 100%, bake: 500ms, maxConcurrent: 100%, maxFailures: 0, maxUnreachable: 0}
  progressDeadline: 30s
  onFailure: ON_FAILURE
"""
FLEET = """\
apiVersion: reconciler.dev/v1alpha1
kind: Fleet
metadata: {name: test}
spec:
  clusters: clusters/
  applications: [apps/]
  policies: [policies/]
  defaults: {rollout: quick, namespace: flink}
"""
APPLICATION = """\
apiVersion: core.oam.dev/v1beta1
kind: Application
metadata: {name: orders}
spec:
  components:
  - name: orders
    type: flink-application
    properties: {image: "IMAGE", flinkVersion: v1_20, job: {jarURI: "local:///job.jar", parallelism: 2}}
    traits:
    - {type: checkpointing, properties: {interval: 10s, directory: "s3://bucket/orders"}}
    - {type: upgrade-strategy, properties: {mode: last-state}}
  policies:
  - {type: topology, properties: {clusterLabelSelector: {}, namespace: orders, createNamespace: true}}
"""
FLINK = ("flink.apache.org", "FlinkDeployment", "orders", "orders")


class LiveFleet:
    """Simulated clusters, a repository and a state directory. The first letter of a cluster's name is its ring's."""

    def __init__(
        self,
        directory: Path,
        names: list[str],
        *,
        on_failure: str = "rollback",
        app: str = APPLICATION,
        real: Mapping[str, Path] | None = None,
        impersonate: Mapping[str, str] | None = None,
    ) -> None:
        """`real` gives the kubeconfig of those of `names` that are not to be simulated. `impersonate` is the setting of
        that name: {} for the repository's tenant, without it writes are made as the kubeconfig's own user."""
        self.directory = directory
        self.names = names
        self.state_dir = directory / "state"
        self.config = directory / "reconciler.yaml"
        self.repository = GitRepository(directory / "fleet.git")
        self.clusters: dict[str, SimCluster] = {}
        self.writes: list[tuple[str, str, str]] = []
        self._app = app
        self._real = dict(real or {})
        self._on_failure = on_failure
        self._impersonate = dict({"user": "none"} if impersonate is None else impersonate)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="clusters", daemon=True)
        self._face: HttpFace | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self.on_loop(self._start)
        face = self._face
        assert face is not None
        if self.clusters:
            face.write_kubeconfig(self.directory / "kubeconfig")
        settings = {
            "stateDir": str(self.state_dir),
            "listen": "127.0.0.1:0",
            "checkInterval": "200ms",
            "resyncInterval": "3s",
            "repositories": [
                {
                    "name": "fleet",
                    "url": self.repository.url,
                    "poll": "200ms",
                    "impersonate": self._impersonate,
                }
            ],
            "clusters": {name: self._access(name) for name in self.names},
            "allow": {"protocols": ["file"]},
        }
        self.config.write_text(yaml.safe_dump(settings))
        return self

    def __exit__(self, *_: object) -> None:
        self.on_loop(self._stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _access(self, name: str) -> dict[str, str]:
        if name in self._real:
            return {"kubeconfig": str(self._real[name])}
        return {"kubeconfig": "kubeconfig", "context": name}

    async def _start(self) -> None:
        clock = WallClock(1, asyncio.get_running_loop())
        for name in self.names:
            if name in self._real:
                continue
            cluster = SimCluster(name, clock, seed=name, timings=FAST, behaviours=Behaviours())
            self.clusters[name] = cluster
            cluster.server.observe(partial(self._noted, name))
        down = intercept_all(self.clusters, ConnectionDropped)
        self._face = HttpFace({name: cluster.server for name, cluster in self.clusters.items()}, intercept=down)
        await self._face.start()

    def _noted(self, name: str, key: Key, event: Event) -> None:
        """What the daemon wrote: (cluster, kind, what), where the object's own content changed."""
        kind, before = key.kind, event.before
        if event.type == "ADDED":
            self.writes.append((name, kind, "created"))
        elif event.type == "DELETED":
            self.writes.append((name, kind, "deleted"))
        elif before is None or generation_of(before.value) != generation_of(event.after.value):
            self.writes.append((name, kind, "changed"))

    async def _stop(self) -> None:
        for cluster in self.clusters.values():
            cluster.stop()
        if self._face is not None:
            await self._face.stop()

    def on_loop(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run `work` on the clusters' loop and wait for it."""
        done: Future[Any]
        if asyncio.iscoroutinefunction(work):
            done = asyncio.run_coroutine_threadsafe(work(*arguments), self._loop)
        else:

            async def call() -> Any:
                return work(*arguments)

            done = asyncio.run_coroutine_threadsafe(call(), self._loop)
        return done.result(20)

    # ---- what people do ------------------------------------------------------------------------------------------

    def commit(self, image: str, **more: str) -> str:
        """Commit the fleet with this image of its one application."""
        return self.repository.commit(self.files(image, **more))

    def files(self, image: str, **more: str) -> dict[str, bytes]:
        """What such a commit holds."""
        files = {
            "fleet.yaml": FLEET,
            "policies/rollout.yaml": POLICY.replace("ON_FAILURE", self._on_failure),
            "apps/orders/app.yaml": self._app.replace("IMAGE", image),
            **{f"clusters/{name}.yaml": cluster_document(name) for name in self.names},
            **more,
        }
        return {path: text.encode() for path, text in files.items()}

    def live(self, name: str) -> dict[str, Any] | None:
        """The FlinkDeployment on cluster `name`."""
        found: dict[str, Any] | None = self.on_loop(self.clusters[name].read, *FLINK)
        return found

    def image(self, name: str) -> str:
        """Its image, "" without one."""
        found = self.live(name)
        return str(found["spec"].get("image", "")) if found else ""

    def settled(self) -> bool:
        """All targets synced and no rollout active."""
        found = self.ask("status")
        return bool(found["targets"]["synced"] == len(self.names) and not found["rollouts"])

    def newest(self) -> dict[str, Any]:
        """The newest rollout, {} without one."""
        found = self.ask("rollouts")["rollouts"]
        return dict(found[0]) if found else {}

    def until(self, condition: Callable[[], bool], within_s: float = 90.0) -> None:
        """Wait until `condition` holds; what takes longer counts as never."""
        deadline_s = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline_s, f"not so within {within_s} s"
            time.sleep(0.05)

    # ---- the daemon ----------------------------------------------------------------------------------------------

    @contextmanager
    def daemon(self) -> Iterator[Daemon]:
        """Start the daemon; it is killed at the end if it still runs."""
        with (self.directory / "daemon.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "reconciler.cli.main", "run", "--config", str(self.config)],
                stdout=log,
                stderr=log,
                env=environment(),
            )
        daemon = Daemon(process, self)
        try:
            yield daemon
        finally:
            daemon.kill()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command against the daemon."""
        return run_command(*arguments, "--config", str(self.config))

    def ask(self, *arguments: str) -> Any:
        """The JSON answer of a command that succeeds."""
        done = self.command(*arguments, "-o", "json")
        assert done.returncode == 0, done.stdout + done.stderr + self.log()
        return json.loads(done.stdout)

    def log(self) -> str:
        """What the daemons logged."""
        return (self.directory / "daemon.log").read_text()


class Daemon:
    """The process."""

    def __init__(self, process: subprocess.Popen[bytes], fleet: LiveFleet) -> None:
        self.process = process
        self._fleet = fleet

    def kill(self) -> None:
        """kill -9. May be called twice."""
        self.process.kill()
        self.process.wait(10)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; its exit status. It has five seconds."""
        self.process.send_signal(number)
        return self.process.wait(5)

    def ready(self) -> Daemon:
        """Wait until it listens and has read Git."""
        self._fleet.until(self._is_ready)
        return self

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self._fleet.log()
        done = self._fleet.command("status", "-o", "json")
        return done.returncode == 0 and all(source["commit"] for source in json.loads(done.stdout)["sources"])


def generation_of(manifest: dict[str, Any]) -> Any:
    """It changes with the object's own content, not with its status."""
    return manifest["metadata"].get("generation")


def cluster_document(name: str) -> str:
    """A Cluster of the ring that its name begins with."""
    return (
        "apiVersion: reconciler.dev/v1alpha1\nkind: Cluster\n"
        f"metadata: {{name: {name}, labels: {{ring: {RINGS[name[0]]}, region: r{name[-1]}}}}}\n"
        f"spec: {{credentials: {name}, staleAfter: 2s}}\n"
    )


def environment() -> dict[str, str]:
    """Ours, without what would configure a daemon."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RECONCILER_")}


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`reconciler ARGUMENTS`, in this process: tests ask often, and a start costs more than an answer."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(arguments)
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())
