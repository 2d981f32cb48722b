"""Why is it not deployed? The single gate that blocks a target, as one sentence, and when it is looked at next.

Of all that could be said of a target the first that holds is said, in the order in which a person would have to deal
with it: a stopped rollout before a full wave, a wave before a bake. Nothing blocks what is synced and healthy.

    {"application": "sample/orders", "cluster": "eu-west-1b", "state": "Waiting", "blocked_by": "wave:canary",
     "reason": "WaveInProgress", "message": "1 of 2 targets of wave canary are not done", ...}
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from reconciler.core.actions import Wait
from reconciler.core.formats import rough_duration
from reconciler.core.model import (
    FAILURE_STATES,
    ClusterView,
    Now,
    Reason,
    RolloutState,
    TargetState,
)
from reconciler.shell.asking import AskError, find_application, find_cluster, moment_of
from reconciler.shell.daemon import Daemon
from reconciler.shell.looks import SYNCED, Look, Moving, goals_of, looks
from reconciler.shell.rollout_unit import owner_of

STOPPED = frozenset({RolloutState.HALTED, RolloutState.PAUSED, RolloutState.ROLLING_BACK})
#: How a stopped rollout is spoken of.
STOPPED_WORDS = {RolloutState.ROLLING_BACK: "going back"}


@dataclass(frozen=True, slots=True)
class Gate:
    """What blocks: `by` names it ("" if nothing does), `recheck_at` is Now.monotonic or None (when something
    changes)."""

    by: str
    reason: Reason
    recheck_at: float | None = None


async def explain(daemon: Daemon, name: str, cluster: str | None = None) -> dict[str, Any]:
    """The gate of one target; without a cluster the gate that matters most, and those of all under "targets"."""
    application = await find_application(daemon, name)
    found = await looks(daemon, application)
    if cluster is not None:
        find_cluster(daemon, cluster)
        found = [look for look in found if look.target.cluster == cluster]
        if not found:
            raise AskError("unknown-target", f"{application} does not go to cluster {cluster}")
    now = daemon.ports.clock.now()
    answers = [(look, gate_of(daemon, look, now)) for look in found]
    if cluster is not None:
        return as_json(daemon, *answers[0], now)
    if not answers:
        return _of_application(daemon, application, now)
    blocked = [answer for answer in answers if answer[1].by]
    # A gate that waits for nobody's turn but its own says most.
    first = min(blocked or answers, key=lambda answer: (_rank(answer[1]), answer[0].target))
    targets = [as_json(daemon, look, gate, now) for look, gate in answers]
    return {**as_json(daemon, *first, now), "targets": targets}


def _rank(gate: Gate) -> int:
    """0 says most: something has stopped; a turn in a queue says least."""
    if gate.by in ("rollout", "source", "problem"):
        return 0
    if gate.by in ("gate", "cluster", "failure", "quarantine"):
        return 1
    return 3 if gate.by.startswith("wave") or gate.by == "slot" else 2


def as_json(daemon: Daemon, look: Look, gate: Gate, now: Now) -> dict[str, Any]:
    """The shape of `explain`."""
    return {
        "application": look.target.application,
        "cluster": look.target.cluster,
        "revision": revision_of(daemon, look.target.application),
        "state": look.state,
        "blocked_by": gate.by or None,
        "reason": gate.reason.code,
        "message": gate.reason.message,
        "recheck_at": moment_of(gate.recheck_at, now),
        "rollout": look.moving.rollout.id if look.moving is not None else None,
        "deployed_revision": (look.assignment.revision or None) if look.assignment is not None else None,
    }


def revision_of(daemon: Daemon, application: str) -> str | None:
    """The commit that is being explained: the last one of its source that was looked at."""
    source, _ = goals_of(daemon, application)
    unit = daemon.sources.get(source)
    return unit.commit.sha if unit is not None and unit.commit is not None else None


def _of_application(daemon: Daemon, application: str, now: Now) -> dict[str, Any]:
    """An application without any target yet: what keeps it from having some."""
    gate = _source_gate(daemon, application) or Gate("topology", Reason("NoTargets", "no cluster is selected"))
    return {
        "application": application,
        "cluster": None,
        "revision": revision_of(daemon, application),
        "state": "Waiting",
        "blocked_by": gate.by,
        "reason": gate.reason.code,
        "message": gate.reason.message,
        "recheck_at": moment_of(gate.recheck_at, now),
        "rollout": None,
        "deployed_revision": None,
        "targets": [],
    }


# ---- the gate ----------------------------------------------------------------------------------------------------


def gate_of(daemon: Daemon, look: Look, now: Now) -> Gate:
    """What blocks one target now."""
    if look.moving is not None:
        return _moving_gate(daemon, look, look.moving, now)
    return _standing_gate(daemon, look, now)


def _moving_gate(daemon: Daemon, look: Look, moving: Moving, now: Now) -> Gate:
    rollout, row = moving.rollout, moving.row
    waits = daemon.board.waits.get(owner_of(rollout.id), ())
    own = _wait_of(waits, str(look.target))
    if rollout.state in STOPPED and row.state is TargetState.WAITING:
        reason = rollout.reason or Reason(str(rollout.state), "nothing new starts")
        state = STOPPED_WORDS.get(rollout.state, str(rollout.state))
        return Gate("rollout", Reason(reason.code, f"its rollout is {state}: {reason.message}"))
    if row.state in FAILURE_STATES:
        reason = row.reason or Reason(str(row.state), "the target failed")
        return Gate("failure", Reason(reason.code, f"it failed at the new release: {reason.message}"))
    match row.state:
        case TargetState.UNREACHABLE if look.unreachable and look.view is not None:
            return _silent_gate(look.view, now)
        case TargetState.UNREACHABLE | TargetState.BLOCKED:
            by = "cluster" if row.state is TargetState.UNREACHABLE else "gate"
            return Gate(by, row.reason or Reason(str(row.state), "the cluster cannot take the release now"))
        case TargetState.BAKING if look.blind is not None:
            return Gate("observation", look.blind)
        case TargetState.BAKING:
            return _bake_gate(moving, now)
        case TargetState.ROLLING_BACK:
            why = row.reason.message if row.reason is not None else "the rollout was stopped"
            return Gate("rollback", Reason("RollingBack", f"it goes back to its last baked release: {why}"))
        case TargetState.APPLYING:
            return _applying_gate(daemon, look)
        case TargetState.PROGRESSING if look.blind is not None:
            return Gate("observation", look.blind)
        case TargetState.PROGRESSING:
            reason = row.reason or Reason("Progressing", "the new release is not healthy yet")
            return Gate("health", Reason(reason.code, f"waiting for it to be healthy: {reason.message}"))
    if own is not None:
        by = "slot" if own.reason.code == "NoSlot" else "cluster" if own.reason.code.startswith("Cluster") else "gate"
        return Gate(by, own.reason, own.recheck_at)
    return _wave_gate(moving, waits)


def _silent_gate(view: ClusterView, now: Now) -> Gate:
    """The cluster does not answer: why, as far as is known now, and for how long it has not."""
    heard = "" if view.heard_at is None else f"; last heard {rough_duration(now.monotonic - view.heard_at)} ago"
    return Gate("cluster", Reason("ClusterUnreachable", view.silence + heard))


def _applying_gate(daemon: Daemon, look: Look) -> Gate:
    lane = daemon.lanes.get(look.target.cluster)
    retry = lane.retry_of(look.target) if lane is not None else None
    if retry is None:
        return Gate("apply", Reason("Applying", "its objects are being written"))
    message = f"a write did not succeed yet and is tried again: {retry.reason.message}"
    return Gate("apply", Reason(retry.reason.code, message), retry.at_s)


def _bake_gate(moving: Moving, now: Now) -> Gate:
    wave = moving.rollout.plan.waves[moving.row.wave]
    left_s = max(0.0, wave.bake_s - moving.row.bake_s)
    message = f"healthy; baked {rough_duration(moving.row.bake_s)} of {rough_duration(wave.bake_s)}"
    return Gate("bake", Reason("Baking", message), now.monotonic + left_s)


def _wave_gate(moving: Moving, waits: Sequence[Wait]) -> Gate:
    """Waiting, and nothing was said of the target itself: its wave is not open."""
    own = moving.rollout.plan.waves[moving.row.wave].name
    for wait in waits:
        if wait.subject.startswith("wave:"):
            message = f"wave {own} opens after it: {wait.reason.message}" if wait.subject[5:] != own else ""
            reason = Reason(wait.reason.code, message) if message else wait.reason
            return Gate(wait.subject, reason, wait.recheck_at)
    whole = _wait_of(waits, "")
    if whole is not None:
        return Gate("rollout", whole.reason, whole.recheck_at)
    return Gate(f"wave:{own}", Reason("NotDecidedYet", "its rollout has not decided about it yet"))


def _standing_gate(daemon: Daemon, look: Look, now: Now) -> Gate:
    """A target that no rollout moves."""
    waits = daemon.board.waits.get(f"application:{look.target.application}", ())
    source = _source_gate(daemon, look.target.application)
    if look.state == "Orphaned":
        return source or Gate("", Reason("Orphaned", "Git no longer declares it; its objects are kept"))
    if look.unreachable:
        if look.view is not None:
            return _silent_gate(look.view, now)
        return Gate("cluster", Reason("ClusterUnreachable", f"cluster {look.target.cluster} is not declared any more"))
    if look.blind is not None:
        return Gate("observation", look.blind)
    if source is not None and look.goal != look.assigned:
        return source
    own = [each for each in waits if each.subject == str(look.target)]
    # What stays of an earlier release keeps nothing from moving: everything else is said before it.
    left = next((each for each in own if each.reason.code == "LeftBehind"), None)
    wait = next((each for each in own if each is not left), None)
    if wait is not None:
        by = "quarantine" if wait.reason.code == "Quarantined" else "gate"
        return Gate(by, wait.reason, wait.recheck_at)
    if look.state == SYNCED:
        if left is not None:
            return source or Gate("", left.reason)
        return source or Gate("", Reason("UpToDate", "the release that Git asks for is live and healthy"))
    if look.state in ("Waiting", "Outdated"):
        return Gate("source", Reason("NotDecidedYet", "the new release was found and is about to be rolled out"))
    verdict = look.current
    if verdict is None:
        return Gate("observation", Reason("NotObserved", "its objects have not been looked at yet"))
    by = "drift" if look.state == "Drifted" else "health"
    message = f"live differs from the assigned release: {verdict.reason.message}"
    return Gate(by, verdict.reason if by == "health" else Reason("Drift", message))


def _source_gate(daemon: Daemon, application: str) -> Gate | None:
    """What keeps the whole application, or its repository, from moving on."""
    source, _ = goals_of(daemon, application)
    unit = daemon.sources.get(source)
    if unit is None or unit.snapshot is None:
        # Nobody declares it: either nobody does any more, or who does was not read yet.
        unread = [other for _, other in sorted(daemon.sources.items()) if other.snapshot is None]
        if not unread:
            return None
        reason = unread[0].failure or Reason("SourceNotRead", "its repository has not been read yet")
        return Gate("source", reason)
    compiled = unit.snapshot.applications.get(application)
    if compiled is not None and compiled.blocked is not None:
        return Gate("problem", compiled.blocked)
    if unit.snapshot.kept is not None:
        return Gate("source", unit.snapshot.kept)
    wait = _wait_of(daemon.board.waits.get(f"application:{application}", ()), "")
    if wait is not None:
        return Gate("source", wait.reason, wait.recheck_at)
    if unit.failure is not None:
        message = f"its repository cannot be read now: {unit.failure.message}"
        return replace(Gate("source", Reason(unit.failure.code, message)))
    return None


def _wait_of(waits: Sequence[Wait], subject: str) -> Wait | None:
    return next((wait for wait in waits if wait.subject == subject), None)
