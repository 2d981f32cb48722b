"""One look at every target of an application: what Git asks for, what is assigned, what is live, what moves it.

The looks are what status, the list of applications and `explain` are made of, so that all of them say the same.

    for look in await looks(daemon, "sample/orders"):
        look.state        # "Synced", "Waiting", "Baking", "Drifted", "Unreachable", ...
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.core.model import (
    SETTLED_STATES,
    Assignment,
    ClusterView,
    Health,
    Now,
    Reason,
    Rollout,
    RolloutTarget,
    Sync,
    Target,
    TargetVerdict,
)
from reconciler.shell.asking import declared_applications
from reconciler.shell.daemon import Daemon
from reconciler.shell.ports import Tx

SYNCED = "Synced"
WELL = frozenset({Health.HEALTHY, Health.SUSPENDED})


@dataclass(frozen=True, slots=True)
class Moving:
    """The rollout that has a target, with the target's row in it."""

    rollout: Rollout
    row: RolloutTarget


@dataclass(frozen=True, slots=True)
class Look:
    """One target. `goal` is the digest that Git asks for ("": none any more), `moving` the newest active rollout that
    has not settled it; `view` is its cluster's, None if the cluster is not declared; `blind` says why nothing is
    known of it any more although its cluster may answer."""

    target: Target
    goal: str
    assignment: Assignment | None
    verdict: TargetVerdict | None
    moving: Moving | None
    view: ClusterView | None
    unreachable: bool
    blind: Reason | None = None

    @property
    def assigned(self) -> str:
        """The digest it is to have now, "" if none."""
        return self.assignment.digest if self.assignment is not None else ""

    @property
    def current(self) -> TargetVerdict | None:
        """The verdict, if it is about the assigned release."""
        if self.verdict is None or self.verdict.digest != self.assigned:
            return None
        return self.verdict

    @property
    def health(self) -> Health:
        """Its health; not observed, not observable any more, out of reach and not assigned are Unknown."""
        return self.current.health if self.current is not None and self.seen else Health.UNKNOWN

    @property
    def sync(self) -> Sync:
        """Does live equal what is assigned?"""
        return self.current.sync if self.current is not None and self.seen else Sync.UNKNOWN

    @property
    def seen(self) -> bool:
        """True while what is known of it can be true: its cluster answers, and its kinds can be observed."""
        return not self.unreachable and self.blind is None

    @property
    def state(self) -> str:
        """One word: its state in the rollout that moves it, else where it stands by itself."""
        if self.moving is not None:
            return str(self.moving.row.state)
        if self.assigned and not self.goal:
            return "Orphaned"
        if self.unreachable:
            return "Unreachable"
        if not self.assigned:
            return "Waiting"
        if self.current is None or self.sync in (Sync.UNKNOWN, Sync.ASK):
            return "Unknown"
        if self.sync is not Sync.IN_SYNC:
            return "Drifted"
        if self.health not in WELL:
            return str(self.health)
        return SYNCED if self.goal == self.assigned else "Outdated"


def goals_of(daemon: Daemon, application: str) -> tuple[str, Mapping[str, str]]:
    """The source that declares `application`, and the digest it asks for by cluster; ("", {}) if none does."""
    for name in sorted(daemon.sources):
        snapshot = daemon.sources[name].snapshot
        compiled = snapshot.applications.get(application) if snapshot is not None else None
        if compiled is not None:
            return name, compiled.targets
    return "", {}


async def looks(daemon: Daemon, application: str) -> list[Look]:
    """All targets of `application`, by cluster."""
    _, goals = goals_of(daemon, application)

    def read(tx: Tx) -> tuple[dict[Target, Assignment], dict[Target, Moving]]:
        assigned = {row.target: row for row in tx.assignments(application=application)}
        return assigned, moving_in(tx.active_rows(application), tx)

    assigned, moving = await daemon.context.store.read(f"looks:{application}", read)
    return [
        look_at(daemon, target, goals.get(target.cluster, ""), assigned.get(target), moving.get(target))
        for target in sorted({*assigned, *(Target(application, cluster) for cluster in goals)})
    ]


def moving_in(active: Mapping[Target, list[tuple[str, RolloutTarget]]], tx: Tx) -> dict[Target, Moving]:
    """For each target of `active` the newest rollout that has not settled it."""
    rollouts: dict[str, Rollout] = {}
    found: dict[Target, Moving] = {}
    for target, rows in active.items():
        for rollout_id, row in rows:
            if row.state in SETTLED_STATES:
                continue
            if rollout_id not in rollouts:
                rollout = tx.rollout(rollout_id)
                assert rollout is not None, f"rollout {rollout_id} has rows and is not stored"
                rollouts[rollout_id] = rollout
            found[target] = Moving(rollouts[rollout_id], row)
    return found


def look_at(daemon: Daemon, target: Target, goal: str, assignment: Assignment | None, moving: Moving | None) -> Look:
    """The look at one target, with what is known now of it and of its cluster."""
    now: Now = daemon.ports.clock.now()
    view = daemon.board.view(target.cluster, now)
    unreachable = view is not None and view.unreachable(now)
    return Look(
        target, goal, assignment, daemon.board.verdict(target), moving, view, unreachable, _blind(daemon, target)
    )


def is_seen(daemon: Daemon, target: Target, now: Now) -> bool:
    """As `Look.seen`, where that is all that is asked of many targets."""
    view = daemon.board.view(target.cluster, now)
    return (view is None or not view.unreachable(now)) and _blind(daemon, target) is None


def _blind(daemon: Daemon, target: Target) -> Reason | None:
    lane = daemon.lanes.get(target.cluster)
    return lane.blind(target) if lane is not None else None


async def all_looks(daemon: Daemon) -> list[Look]:
    """Every declared or assigned target, by application and cluster."""
    declared = declared_applications(daemon)

    def read(tx: Tx) -> tuple[dict[Target, Assignment], dict[Target, Moving]]:
        assigned = {row.target: row for row in tx.assignments()}
        return assigned, moving_in(tx.active_rows(), tx)

    assigned, moving = await daemon.context.store.read("looks", read)
    goals = {
        Target(name, cluster): digest for name in declared for cluster, digest in goals_of(daemon, name)[1].items()
    }
    return [
        look_at(daemon, target, goals.get(target, ""), assigned.get(target), moving.get(target))
        for target in sorted(assigned.keys() | goals.keys())
    ]
