"""Flink objects and a simulated cluster that remembers what its statuses said, for the tests of the simulator."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from reconciler.sim.behaviour import Behaviours, Timings
from reconciler.sim.cluster import SimCluster
from reconciler.sim.loop import SimClock
from reconciler.sim.store import Event, Key

GROUP = "flink.apache.org"
API_VERSION = "flink.apache.org/v1beta1"
#: Timings without jitter, so that tests can name moments.
EXACT = Timings(jitter_share=0.0)
DIRECTORIES = {"state.savepoints.dir": "s3://savepoints", "state.checkpoints.dir": "s3://checkpoints"}
HIGH_AVAILABILITY = {"high-availability.type": "kubernetes", "high-availability.storageDir": "s3://ha"}
ROLLBACK = {"kubernetes.operator.deployment.rollback.enabled": "true"}
RESOURCE = {"resource": {"memory": "1024m", "cpu": 1}}


def deployment(
    name: str = "orders", *, image: str = "shop/orders:1", configuration: dict[str, str] | None = None, **job: Any
) -> dict[str, Any]:
    """A FlinkDeployment with a job."""
    spec: dict[str, Any] = {
        "image": image,
        "flinkVersion": "v1_20",
        "serviceAccount": "flink",
        "flinkConfiguration": DIRECTORIES | (configuration or {}),
        "jobManager": RESOURCE,
        "taskManager": RESOURCE,
        "job": {"jarURI": "local:///job.jar", "parallelism": 2, "upgradeMode": "savepoint", **job},
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "FlinkDeployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def session_cluster(name: str = "shared") -> dict[str, Any]:
    """A FlinkDeployment without a job."""
    value = deployment(name)
    del value["spec"]["job"]
    return value


def session_job(name: str = "report", cluster: str = "shared") -> dict[str, Any]:
    """A FlinkSessionJob."""
    job = {"jarURI": "https://jars.example/report.jar", "parallelism": 1, "upgradeMode": "stateless"}
    return {
        "apiVersion": API_VERSION,
        "kind": "FlinkSessionJob",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"deploymentName": cluster, "job": job},
    }


def state_snapshot(name: str = "before", job: str = "orders", backoff_limit: int = 1) -> dict[str, Any]:
    """A FlinkStateSnapshot of a FlinkDeployment."""
    reference = {"kind": "FlinkDeployment", "name": job}
    return {
        "apiVersion": API_VERSION,
        "kind": "FlinkStateSnapshot",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"jobReference": reference, "backoffLimit": backoff_limit, "savepoint": {"disposeOnDelete": False}},
    }


class Watched:
    """A cluster on the running loop, and the history of every status: (moment, lifecycle, JobManager, job)."""

    def __init__(
        self, *, timings: Timings = EXACT, behaviours: Behaviours | None = None, cluster: SimCluster | None = None
    ) -> None:
        self.clock = SimClock(asyncio.get_running_loop())
        self.cluster = cluster or SimCluster("eu-1", self.clock, seed=7, timings=timings, behaviours=behaviours)
        self.history: list[tuple[float, str, str, str]] = []
        self.cluster.server.observe(self._observe)

    def _observe(self, key: Key, event: Event) -> None:
        if key.group != GROUP or event.type == "DELETED":
            return
        status = event.after.value.get("status") or {}
        job = (status.get("jobStatus") or {}).get("state", "-")
        seen = (status.get("lifecycleState", "-"), status.get("jobManagerDeploymentStatus", "-"), job)
        if not self.history or self.history[-1][1:] != seen:
            self.history.append((round(self.clock.now().monotonic, 3), *seen))

    def states(self) -> list[tuple[str, str, str]]:
        """The history without its moments, and forget it."""
        states = [entry[1:] for entry in self.history]
        self.history.clear()
        return states

    def value(self, name: str = "orders", kind: str = "FlinkDeployment") -> dict[str, Any]:
        """The object."""
        value = self.cluster.read(GROUP, kind, "default", name)
        assert value is not None
        return value

    def status(self, name: str = "orders", kind: str = "FlinkDeployment") -> dict[str, Any]:
        """Its status, {} if it has none."""
        status: dict[str, Any] = self.value(name, kind).get("status") or {}
        return status

    def job_id(self, name: str = "orders", kind: str = "FlinkDeployment") -> str:
        """The id of its job."""
        return str(self.status(name, kind)["jobStatus"]["jobId"])

    def edit(self, spec: dict[str, Any], name: str = "orders", kind: str = "FlinkDeployment") -> None:
        """Change its spec."""
        self.cluster.edit(GROUP, kind, "default", name, {"spec": spec})

    def deployments(self, name: str = "orders", kind: str = "FlinkDeployment") -> int:
        """How often it was started."""
        machine = self.cluster.operator.machine(kind, "default", name)
        return machine.deployments if machine else 0

    def events(self, reason: str) -> list[str]:
        """The messages of the Kubernetes Events with this reason."""
        found = self.cluster.server.objects("Event", "")
        return [event["message"] for event in found if event["reason"] == reason]


async def running(watched: Watched, value: dict[str, Any] | None = None) -> Watched:
    """Create the object and wait until it runs."""
    watched.cluster.create(value or deployment())
    await asyncio.sleep(60)
    watched.states()
    return watched


def spec_of(text: str) -> dict[str, Any]:
    """The spec inside lastReconciledSpec or lastStableSpec."""
    spec: dict[str, Any] = json.loads(text)["spec"]
    return spec
