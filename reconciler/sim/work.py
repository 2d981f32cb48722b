"""One look of a simulated controller at one object: what it may do with its cluster, and what it goes by.

`Access` is the controller's client. `Work` bundles an object, its machine and the status that comes of the look.
`Surroundings` holds what every part of the operator needs: timings, behaviours and the seed they are drawn from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from reconciler.sim import flink_spec
from reconciler.sim.agenda import EPSILON_S
from reconciler.sim.behaviour import Behaviour, Behaviours, Timings
from reconciler.sim.chance import jitter
from reconciler.sim.flink_spec import Spec
from reconciler.sim.machine import Draft, Machine, Ref


class Access(Protocol):
    """What a controller does with its cluster. Objects it gets must not be modified."""

    def get(self, ref: Ref) -> dict[str, Any] | None: ...
    def objects(self, kind: str) -> list[dict[str, Any]]: ...
    def patch_status(self, ref: Ref, status: Mapping[str, Any]) -> None:
        """Merge-patch the status subresource."""
        ...

    def set_finalizers(self, ref: Ref, finalizers: list[str]) -> None: ...
    def event(self, ref: Ref, value: Mapping[str, Any], kind: str, reason: str, message: str) -> None:
        """Write a Kubernetes Event (`kind`: Normal or Warning) about the object."""
        ...

    def allows(self, kind: str, field: str, value: str) -> bool:
        """Does the cluster's CRD of `kind` admit `value` in the status field `field`?"""
        ...


class Work:
    """One look at one object: what it is, what runs for it, and the status that comes of it."""

    def __init__(self, ref: Ref, value: dict[str, Any], machine: Machine, now_s: float, wall_s: float) -> None:
        self.ref = ref
        self.value = value
        self.machine = machine
        self.draft = Draft(value)
        self.now_s = now_s
        self.wall_ms = int(wall_s * 1000)
        self.generation: int = value["metadata"].get("generation", 1)
        self.spec: Spec = flink_spec.effective(value.get("spec") or {})

    @property
    def mode(self) -> str:
        """Deployment mode; session jobs live in whatever mode their cluster has."""
        return str(self.spec.get("mode", "native"))

    def due(self) -> bool:
        """Has the present phase ended?"""
        return self.machine.due_s is not None and self.machine.due_s <= self.now_s + EPSILON_S

    def stamp(self) -> str:
        """The present wall time as the operator writes timestamps."""
        return str(self.wall_ms)


@dataclass(slots=True)
class Surroundings:
    """What the parts of the operator share. `seed` tells clusters apart."""

    access: Access
    timings: Timings
    behaviours: Behaviours
    seed: object

    def duration(self, value_s: float, ref: Ref, what: str, identity: object) -> float:
        """`value_s`, moved by a jitter that is always the same for (object, what, identity)."""
        return jitter(value_s, self.timings.jitter_share, self.seed, *ref, what, identity)

    def later(self, work: Work, value_s: float, what: str) -> float:
        """The moment `value_s` from now, moved by the jitter of this deployment."""
        slow = work.machine.spec is not None and self.behaviour(work) is Behaviour.SLOW_START
        factor = self.timings.slow_factor if slow else 1.0
        identity = f"{work.machine.uid}/{work.machine.deployments}"
        return work.now_s + factor * self.duration(value_s, work.ref, what, identity)

    def behaviour(self, work: Work) -> Behaviour:
        """How the job being deployed behaves."""
        return self.behaviours.of(work.ref.kind, work.ref.name, work.machine.spec or work.spec)

    def job_id(self, work: Work) -> str:
        """A new job's id: 32 hex digits, as Flink's, and the same in every run."""
        name = f"{self.seed}/{work.machine.uid}/{work.machine.deployments}"
        return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def identity(value: Mapping[str, Any]) -> tuple[object, ...]:
    """What has to change before a controller looks at an object again: its spec, its end, or the object itself."""
    metadata = value["metadata"]
    return (metadata.get("uid"), metadata.get("generation"), metadata.get("deletionTimestamp"))
