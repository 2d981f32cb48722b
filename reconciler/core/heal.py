"""Heal: bring a target back to its *assigned* release when live has drifted from it.

Never to Git's tip: what a halted, paused or not yet reached target is to have is what was assigned to it. Used by a
rollout for its targets and by a source for those in no active rollout, so that the rule stands in one place. Whoever
writes a field three times against us is not fought for ever: it is Contested, and people decide. So it is at once where
the server names who holds it and we are not to overrule anybody (FieldConflict). The object of such a field is left
alone; the others of its target are repaired as ever.

    drift seen -> (may we? fought over? backoff over?) -> Step(Apply(purpose="heal")) | Wait("HealBackoff", until)
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from reconciler.core.actions import Alert, Apply, Contested, Cost, Step, Wait
from reconciler.core.judge import DRIFTED_MAX, worst_sync
from reconciler.core.model import (
    Assignment,
    Now,
    ObjectKey,
    ObjectVerdict,
    Reason,
    RolloutTarget,
    Sync,
    Target,
    TargetVerdict,
)
from reconciler.core.observation import Observation
from reconciler.core.values import clean_text
from reconciler.core.waits import GOING_CODES

HEAL_FIRST_DELAY_S = 2.0
HEAL_FACTOR = 3.0
HEAL_DELAY_MAX_S = 300.0
#: A target that stayed in sync this long after its last heal starts over with the first delay.
HEAL_FORGET_S = 600.0

#: After so many repairs of one field within the window, somebody else is fighting for it.
CONTESTED_HEALS = 3
CONTESTED_WINDOW_S = 600.0
CONTESTED_LENGTH_MAX = 500
#: The ledger in which repairs are counted, one row for each field.
HEALS_LEDGER = "heals"
FIELDS_COUNTED_MAX = 16

#: Kinds whose repair restarts something that runs.
RESTARTING_KINDS = frozenset({"FlinkDeployment", "FlinkSessionJob", "Deployment", "StatefulSet", "DaemonSet"})
#: What was compared to the end: what it does not name is right.
_CERTAIN = frozenset({Sync.IN_SYNC, Sync.DIFFERS, Sync.MISSING})


def heal_delay_s(streak: int) -> float:
    """Seconds to wait after heal number `streak` in a row: 0 before the first, then 2, 6, 18 ... at most 300."""
    if streak <= 0:
        return 0.0
    # Bounded before it is raised to a power: a field that two controllers fight over is repaired for days.
    return float(min(HEAL_FIRST_DELAY_S * HEAL_FACTOR ** min(streak - 1, 10), HEAL_DELAY_MAX_S))


def heal_not_before_s(assignment: Assignment, now: Now) -> float:
    """Now.monotonic before which the target is not healed again. The time down does not count: after a restart the
    whole delay runs anew."""
    since = assignment.heal_at_s if assignment.heal_boot == now.boot else 0.0
    return since + heal_delay_s(assignment.heal_streak)


def heal_scope(target: Target, name: str) -> str:
    """Under which name the repairs of one field are counted."""
    return f"{target}#{name}"


def is_ownership_only(verdict: TargetVerdict) -> bool:
    """True if all that differs is who the server records as owner: one apply settles it and disrupts nothing."""
    differing = [part for part in verdict.objects if part.sync is not Sync.IN_SYNC]
    return bool(differing) and all(part.ownership_only for part in differing)


def has_drifted(verdict: TargetVerdict) -> bool:
    """True if something differs that can be repaired now."""
    return _sync_of_rest(verdict) in (Sync.DIFFERS, Sync.MISSING)


def _sync_of_rest(verdict: TargetVerdict) -> Sync:
    """Its sync but for what is being deleted: that keeps nothing beside it from being repaired."""
    staying = [part for part in verdict.objects if not _is_going(part)]
    return verdict.sync if len(staying) == len(verdict.objects) else worst_sync(staying)


def _is_going(part: ObjectVerdict) -> bool:
    """True if it is being deleted: it is made again once it is gone, and nothing can be done about it before."""
    return part.sync is Sync.UNKNOWN and part.reason.code in GOING_CODES


def drifted_fields(verdict: TargetVerdict, of: Collection[ObjectKey] | None = None) -> tuple[str, ...]:
    """The fields that differ (on the objects `of`), each with its object, bounded: what is counted, once a repair has
    been written, when two controllers fight over one."""
    return tuple(itertools.islice(_names(verdict, of), FIELDS_COUNTED_MAX))


def _names(verdict: TargetVerdict, of: Collection[ObjectKey] | None = None) -> Iterator[str]:
    """Of what is not recorded as ours, and right, nothing differs: nobody fights over that."""
    parts = (part for part in verdict.objects if not part.ownership_only and (of is None or part.key in of))
    names = (f"{part.key}: {name}" if name else str(part.key) for part in parts for name in part.drifted)
    return (" ".join(name.splitlines()) for name in names)


def fought_over(assignment: Assignment) -> tuple[str, ...]:
    """The fields for which the repairs were given up, each with its object."""
    return tuple(assignment.contested.splitlines())


def _is_on(name: str, key: ObjectKey) -> bool:
    """True if the field `name` is one of the object `key`."""
    return name == str(key) or name.startswith(f"{key}: ")


def decide_heal(
    assignment: Assignment, seen: Observation, now: Now, *, row: RolloutTarget | None = None
) -> Step | Wait | None:
    """Heal this target now, later, or not at all. `row` is what its rollout row becomes if it is healed (a bake starts
    again), None outside a rollout."""
    target = assignment.target
    verdict = seen.verdicts.get(target)
    if verdict is None or not assignment.digest or verdict.digest != assignment.digest:
        return None
    fought = fought_over(assignment)
    left = tuple(name for name in fought if not _is_right(name, verdict))
    if left == fought:
        return _repair(assignment, verdict, seen, now, row)
    found = _repair(replace(assignment, contested="\n".join(left), heal_streak=0), verdict, seen, now, row)
    over = Contested(target, left)
    return replace(found, actions=(over, *found.actions)) if isinstance(found, Step) else Step(target, None, (over,))


def _is_right(name: str, verdict: TargetVerdict) -> bool:
    """True if the field that was fought over is certainly right, whatever else differs: where more differs of its
    object than is named, it may be among the rest."""
    known = all(each in _CERTAIN for each in (verdict.sync, *(part.sync for part in verdict.objects)))
    cut = any(len(part.drifted) >= DRIFTED_MAX and _is_on(name, part.key) for part in verdict.objects)
    return known and not cut and name not in _names(verdict)


def _repair(
    assignment: Assignment, verdict: TargetVerdict, seen: Observation, now: Now, row: RolloutTarget | None
) -> Step | Wait | None:
    target = assignment.target
    summary, cluster = seen.intents.get(target), seen.clusters.get(target.cluster)
    if cluster is None or cluster.suspended or cluster.unreachable(now):
        return None
    if not has_drifted(verdict):
        # Who keeps an object from being made again is told.
        held = next((part.reason for part in verdict.objects if part.reason.code == "FinalizersHold"), None)
        return None if held is None else Wait(str(target), held)
    if summary is not None and summary.pending:
        return None
    if verdict.disabled:
        return Wait(str(target), Reason("ReconcileDisabled", "a live object says reconciler.dev/reconcile: disabled"))
    if target.application in seen.report_only:
        message = "live differs from the assigned release, and its policy says selfHeal: false: it is only reported"
        return Wait(str(target), Reason("SelfHealOff", message))
    refused = seen.refused.get(target, {}) if assignment.heal_streak else {}
    fought = fought_over(assignment)
    alone = tuple(
        part.key for part in verdict.objects if _is_going(part) or any(_is_on(name, part.key) for name in fought)
    )
    rest = replace(verdict, objects=tuple(part for part in verdict.objects if part.key not in alone))
    name, conflict = _conflict(rest, refused)
    name = name or _fought_over(rest, seen.heals.get(target, {}))
    if name:
        return _given_up(assignment, name, conflict or _contested(rest, name))
    broken = [part for part in rest.objects if part.sync in (Sync.DIFFERS, Sync.MISSING)]
    if fought and not broken:
        return Wait(str(target), _left_alone(verdict, fought, refused))
    since = assignment.heal_at_s if assignment.heal_boot == now.boot else 0.0
    forgotten = now.monotonic - since > HEAL_FORGET_S
    streak = 0 if forgotten else assignment.heal_streak
    not_before = 0.0 if forgotten else heal_not_before_s(assignment, now)
    if now.monotonic < not_before:
        return Wait(str(target), _backoff(streak, refused), not_before)
    disruptive = [part for part in broken if part.key.kind in RESTARTING_KINDS and not part.ownership_only]
    heal = Apply(target, assignment.digest, "heal", assignment.heal_count + 1, assignment.revision, streak + 1, alone)
    # What changes owners only disrupts nothing: no restart, and a bake goes on.
    return Step(target, None if is_ownership_only(rest) else row, (heal,), Cost(restarts=1 if disruptive else 0))


def _fought_over(verdict: TargetVerdict, heals: Mapping[str, int]) -> str:
    """The first field that was repaired too often and differs again, "" if there is none."""
    return next((name for name in drifted_fields(verdict) if heals.get(name, 0) >= CONTESTED_HEALS), "")


def _conflict(verdict: TargetVerdict, refused: Mapping[ObjectKey, Reason]) -> tuple[str, Reason | None]:
    """The first field that still differs of an object whose last repair would have overruled another manager, and how
    that is told; "" if there is none."""
    for key, reason in refused.items():
        name = next(_names(verdict, {key}), "") if reason.code == "FieldConflict" else ""
        if name:
            message = (
                f"{reason.message}. It is left alone: let that manager give them up, or say conflicts: force; "
                f"`reconciler sync` tries again"
            )
            return name, Reason(reason.code, clean_text(message, CONTESTED_LENGTH_MAX))
    return "", None


def _backoff(streak: int, refused: Mapping[ObjectKey, Reason]) -> Reason:
    """Why the next repair waits. One that the server refused was none."""
    for reason in refused.values():
        message = f"the last repair was refused: {reason.code}: {reason.message}; the next attempt waits"
        return Reason("HealBackoff", clean_text(message, CONTESTED_LENGTH_MAX))
    return Reason("HealBackoff", f"drifted again after {streak} repairs in a row; the next one waits")


def _contested(verdict: TargetVerdict, name: str) -> Reason:
    """Somebody else writes the field whenever we have: whoever it is, people have to decide between the two."""
    managers = sorted({manager for part in verdict.objects for manager in part.drifted_by})
    who = ", ".join(managers) if managers else "another writer"
    message = (
        f"{name} was repaired {CONTESTED_HEALS} times in ten minutes and changed again by {who}: it is left alone. "
        f"Stop the other writer, or hand the field over with ignoreDifferences; `reconciler sync` tries again"
    )
    return Reason("Contested", clean_text(message, CONTESTED_LENGTH_MAX))


def _left_alone(verdict: TargetVerdict, fought: tuple[str, ...], refused: Mapping[ObjectKey, Reason]) -> Reason:
    """What of the target is not repaired, when everything else is right."""
    name, conflict = _conflict(verdict, refused)
    if conflict is not None and name in fought:
        return conflict
    parts = [part for part in verdict.objects if any(_is_on(name, part.key) for name in fought)]
    managers = sorted({manager for part in parts for manager in part.drifted_by})
    more = f" and {len(fought) - 1} more" if len(fought) > 1 else ""
    message = (
        f"{fought[0]}{more} is fought over with {', '.join(managers) or 'another writer'}: it is left alone. Stop the "
        f"other writer, or hand the field over with ignoreDifferences; `reconciler sync` tries again"
    )
    return Reason("Contested", clean_text(message, CONTESTED_LENGTH_MAX))


def _given_up(assignment: Assignment, name: str, reason: Reason) -> Step:
    """Leave the object of the field alone from now on, and tell people once."""
    target, fought = assignment.target, fought_over(assignment)
    key = f"{target}/contested/{assignment.heal_count}/{len(fought)}"
    alert = Alert(key, "alert", reason, target.application, (target,))
    return Step(target, None, (Contested(target, (*fought, name)), alert))
