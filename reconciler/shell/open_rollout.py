"""Opens a rollout: what a source decided becomes a frozen plan and rows in the store. The rollout's unit does the rest.

rollout_id = open_rollout(tx, "fleet", sha, snapshot, "shop/orders", decision, 10.0, now)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from reconciler.core.change import change_of
from reconciler.core.decide_source import ApplicationDecision, Goal
from reconciler.core.digest import digest_of
from reconciler.core.fleet_model import FleetSnapshot
from reconciler.core.model import (
    SETTLED_STATES,
    Assignment,
    Now,
    Release,
    Rollout,
    RolloutState,
    RolloutTarget,
    Target,
    TargetState,
)
from reconciler.core.waves import freeze
from reconciler.shell.ports import AuditRow, Tx

#: How many rollouts are looked through for the one that brought a release.
ROLLOUTS_SEARCHED_MAX = 10


def open_rollout(
    tx: Tx,
    source: str,
    revision: str,
    snapshot: FleetSnapshot,
    application: str,
    found: ApplicationDecision,
    check_interval_s: float,
    now: Now,
) -> str:
    """Freeze the plan for `found` at commit `revision` and store the rollout. Returns its id. Raises
    UnmatchedTargetsError."""
    compiled = snapshot.applications[application]
    assert compiled.policy is not None, f"{application} has targets and no rollout policy"
    for digest in sorted({goal.digest for goal in found.open} & compiled.releases.keys()):
        tx.put_release(compiled.releases[digest])
    release = functools.cache(tx.release)  # many targets move between few releases
    changes = [change_of(goal.target, *_releases(release, goal)) for goal in found.open]
    plan = freeze(
        compiled.policy,
        changes,
        snapshot.clusters,
        {application: compiled.labels},
        check_interval_s=check_interval_s,
    )
    places = {target: number for number, wave in enumerate(plan.waves) for target in wave.targets}
    rollout_id = _rollout_id(tx, application, revision, found.open)
    rows = [
        RolloutTarget(goal.target, places[goal.target], goal.digest, goal.from_digest, goal.baked_digest)
        for goal in found.open
    ]
    rollout = Rollout(rollout_id, source, application, found.kind, revision, plan, RolloutState.ACTIVE, None, now.wall)
    order = {target: place for place, target in enumerate(plan.targets)}
    tx.insert_rollout(rollout, sorted(rows, key=lambda row: order[row.target]))
    message = f"rollout {rollout_id} moves {len(rows)} targets of {application} in {len(plan.waves)} waves"
    tx.audit(
        AuditRow(
            now.wall,
            "event",
            "RolloutOpened",
            message,
            source,
            application,
            rollout=rollout_id,
            data={"revision": revision, "hash": plan.hash, "kind": str(found.kind)},
        )
    )
    return rollout_id


def _releases(release: Callable[[str], Release | None], goal: Goal) -> tuple[Release | None, Release]:
    before = release(goal.from_digest) if goal.from_digest is not None else None
    after = release(goal.digest)
    assert after is not None, f"release {goal.digest} of {goal.target} is not stored"
    return before, after


def _rollout_id(tx: Tx, application: str, sha: str, goals: tuple[Goal, ...]) -> str:
    """A short name that says what it is; the same decision made again has another number."""
    short = application.rpartition("/")[2][:30]
    moves = sorted((goal.target.cluster, goal.digest) for goal in goals)
    number = 0
    while True:
        found = f"{short}-{sha[:7]}-{digest_of([application, sha, moves, number], length=4)}"
        if tx.rollout(found) is None:
            return found
        number += 1


def unproven_targets(
    tx: Tx,
    application: str,
    assignments: Mapping[Target, Assignment],
    active: Mapping[Target, list[tuple[str, RolloutTarget]]],
) -> dict[Target, TargetState]:
    """Of `assignments` the targets with a release that never baked there and no rollout (`active`: their rows in those
    that go on) that brings it; with the state in which the newest one that brought the release left them. A target
    that a newer rollout has asked for counts as Superseded, also while the older one still has it in flight."""
    suspects = {
        target
        for target, found in assignments.items()
        if found.digest
        and found.digest != found.baked
        and all(
            row.superseding or row.state in SETTLED_STATES or row.to_digest != found.digest
            for _, row in active.get(target, ())
        )
    }
    left: dict[Target, TargetState] = {}
    for rollout in tx.rollouts(application=application, limit=ROLLOUTS_SEARCHED_MAX) if suspects else ():
        for row in tx.rollout_targets(rollout.id):
            if row.target in suspects and row.changed and row.to_digest == assignments[row.target].digest:
                suspects.discard(row.target)
                gone = row.superseding and row.state is not TargetState.SUCCEEDED
                left[row.target] = TargetState.SUPERSEDED if gone else row.state
        if not suspects:
            break
    return left
