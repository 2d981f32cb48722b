"""A cluster of the stage, as the steps see it: they read it, lay hands on it, cut its line and ask what was written.

There are two kinds, which show the same: simulated ones (here) and real control planes (`real_cluster.py`).

    job = await cluster.read("flink.apache.org/v1beta1", key)
    await cluster.edit("flink.apache.org/v1beta1", key, {"spec": {"image": "by/hand:1"}})
    await cluster.cut()
    cluster.changes[mark:]                     # what the daemon has written since
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from reconciler.core.model import Manifest, ObjectKey
from reconciler.demo.fleet import APPLICATION
from reconciler.sim.cluster import EDITOR, SimCluster
from reconciler.sim.operator import FLINK_GROUP
from reconciler.sim.store import Event, Key

#: The object that the steps change, edit and delete.
JOB = ObjectKey(FLINK_GROUP, "FlinkDeployment", APPLICATION, APPLICATION)
JOB_API_VERSION = f"{FLINK_GROUP}/v1beta1"


@dataclass(frozen=True, slots=True)
class Change:
    """A write of the daemon's that changed something: when by the policy clock, and the labels of what was written."""

    wall: float
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class JobState:
    """What the operator wrote of the job: when by the policy clock, of which image, its lifecycleState and the job's
    own state."""

    wall: float
    image: str
    lifecycle: str
    job: str

    @classmethod
    def of(cls, manifest: Manifest, wall: float) -> JobState:
        """What an object of the job tells at `wall`."""
        status = manifest.get("status") or {}
        job = str((status.get("jobStatus") or {}).get("state", ""))
        return cls(wall, str(manifest["spec"].get("image", "")), str(status.get("lifecycleState", "")), job)


@dataclass(slots=True)
class JobLog:
    """What became of the job of one cluster, whenever that changed."""

    states: list[JobState] = field(default_factory=list)

    def note(self, key: ObjectKey, manifest: Manifest, wall: float) -> None:
        """An object was written at `wall`."""
        if key != JOB:
            return
        state = JobState.of(manifest, wall)
        last = self.states[-1] if self.states else None
        if last is None or (last.image, last.lifecycle, last.job) != (state.image, state.lifecycle, state.job):
            self.states.append(state)


class StageCluster(Protocol):
    """One cluster."""

    @property
    def name(self) -> str:
        """Its name in the fleet."""
        ...

    @property
    def changes(self) -> Sequence[Change]:
        """What the daemon has changed since the beginning."""
        ...

    @property
    def jobs(self) -> Sequence[JobState]:
        """What the operator wrote of the job that the steps change, whenever that changed."""
        ...

    @property
    def idle(self) -> bool:
        """True if no controller has anything due and nothing that was written is still on its way."""
        ...

    async def read(self, api_version: str, key: ObjectKey) -> Manifest | None:
        """The object as it is there, None if it is not. It must not be modified."""
        ...

    async def edit(self, api_version: str, key: ObjectKey, patch: dict[str, Any], manager: str = EDITOR) -> None:
        """Change an object by hand, by a merge patch in the name of a field manager."""
        ...

    async def delete(self, api_version: str, key: ObjectKey) -> None:
        """Delete an object by hand."""
        ...

    async def cut(self) -> None:
        """Cut the daemon's line: open connections break, new ones are refused."""
        ...

    async def mend(self) -> None:
        """The line is back."""
        ...


class SimulatedCluster:
    """A StageCluster over a simulated one: the changes are those of its own write log."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._log = JobLog()
        self._changes: list[Change] = []
        self._read = 0
        cluster.server.observe(self._written)

    def _written(self, key: Key, event: Event) -> None:
        if event.type != "DELETED":
            self._log.note(ObjectKey(*key), event.after.value, self._cluster.clock.now().wall)

    @property
    def name(self) -> str:
        """See StageCluster."""
        return self._cluster.name

    @property
    def changes(self) -> Sequence[Change]:
        """See StageCluster. Writes of controllers and people have no user; what changed nothing, was refused or only
        tried (dry-run) is no change."""
        log = self._cluster.server.log
        self._changes += [
            Change(entry.time, entry.labels)
            for entry in log[self._read :]
            if entry.user and entry.changed and not entry.dry_run and entry.code < 300
        ]
        self._read = len(log)
        return self._changes

    @property
    def jobs(self) -> Sequence[JobState]:
        """See StageCluster."""
        return self._log.states

    @property
    def idle(self) -> bool:
        """See StageCluster."""
        return self._cluster.idle()

    async def read(self, api_version: str, key: ObjectKey) -> Manifest | None:  # noqa: ARG002 - a kind has one version
        """See StageCluster."""
        return self._cluster.read(*key)

    async def edit(
        self,
        api_version: str,  # noqa: ARG002 - as above
        key: ObjectKey,
        patch: dict[str, Any],
        manager: str = EDITOR,
    ) -> None:
        """See StageCluster."""
        self._cluster.edit(*key, patch, manager=manager)

    async def delete(self, api_version: str, key: ObjectKey) -> None:  # noqa: ARG002 - as above
        """See StageCluster."""
        self._cluster.delete(*key)

    async def cut(self) -> None:
        """See StageCluster."""
        self._cluster.set_unreachable(True)

    async def mend(self) -> None:
        """See StageCluster."""
        self._cluster.set_unreachable(False)
