"""What really became of the Flink jobs, as told by the clusters: what a daemon that calls one healthy is held against.

histories.note("c0", key, event, now_s)
histories.of("c0", key).healthy_by(now_s)      # seconds healthy at the newest generation
"""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler.core.model import ObjectKey
from reconciler.sim.store import Event, Key


@dataclass(slots=True)
class JobHistory:
    """One job: how long it was healthy at its newest generation, in virtual seconds, and which image that runs."""

    generation: int = 0
    image: object = None
    healthy_since: float | None = None
    healthy_s: float = 0.0

    def healthy_by(self, now_s: float) -> float:
        """Healthy seconds in all since the newest generation was written."""
        return self.healthy_s + (now_s - self.healthy_since if self.healthy_since is not None else 0.0)


@dataclass(slots=True)
class JobHistories:
    """All jobs that exist, by cluster and key."""

    _jobs: dict[tuple[str, ObjectKey], JobHistory] = field(default_factory=dict)

    def of(self, cluster: str, key: ObjectKey) -> JobHistory | None:
        """The job's history, None if it does not exist."""
        return self._jobs.get((cluster, key))

    def note(self, cluster: str, key: Key, event: Event, now_s: float) -> None:
        """An object of `cluster` changed at `now_s`."""
        if key.kind != "FlinkDeployment":
            return
        where = (cluster, ObjectKey(key.group, key.kind, key.namespace, key.name))
        if event.type == "DELETED":
            self._jobs.pop(where, None)
            return
        value = event.after.value
        history = self._jobs.setdefault(where, JobHistory())
        generation = value["metadata"].get("generation", 0)
        status = value.get("status") or {}
        healthy = (
            status.get("lifecycleState") == "STABLE"
            and (status.get("jobStatus") or {}).get("state") == "RUNNING"
            and status.get("observedGeneration") == generation
        )
        if history.generation != generation:
            history.generation, history.healthy_since, history.healthy_s = generation, None, 0.0
            history.image = value["spec"].get("image")
        if healthy and history.healthy_since is None:
            history.healthy_since = now_s
        elif not healthy and history.healthy_since is not None:
            history.healthy_s += now_s - history.healthy_since
            history.healthy_since = None
