"""Record: a decision becomes rows, inside the transaction that it was made in (T1).

Nothing is written to a cluster before the intents that this stores are committed. The identity of an intent is made of
what it does, so that recording the same decision twice stores it once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from reconciler.core.actions import (
    Abandon,
    Action,
    Alert,
    Apply,
    Baked,
    Contested,
    Decision,
    Disabled,
    Due,
    Forgotten,
    Ledgers,
    Orphaned,
    Prune,
    Quarantine,
)
from reconciler.core.admit import WINDOW_S, Spend
from reconciler.core.apply_rules import rules_from_text
from reconciler.core.heal import CONTESTED_WINDOW_S, HEALS_LEDGER, drifted_fields, fought_over, has_drifted, heal_scope
from reconciler.core.model import (
    Assignment,
    Intent,
    IntentResult,
    InventoryItem,
    InventoryPhase,
    Now,
    ObjectKey,
    Reason,
    RolloutTarget,
    Target,
    TargetState,
    TargetVerdict,
    Verb,
    intent_id,
)
from reconciler.core.observation import IntentSummary
from reconciler.shell.ports import AuditRow, QuarantineRow, Tx

_NOTHING_INTENDED = IntentSummary()

#: Which level of the five a target's new state is told at, and how; the others are not worth a line in the audit log.
AUDITED = {
    TargetState.APPLYING: ("event", "moves to release {to}"),
    TargetState.BAKING: ("event", "is healthy at release {to} and bakes"),
    TargetState.SUCCEEDED: ("event", "has baked at release {to}"),
    TargetState.ROLLING_BACK: ("event", "goes back to release {baked}"),
    TargetState.ROLLED_BACK: ("event", "is healthy at release {baked} again"),
    TargetState.UNREACHABLE: ("risk", ""),
    TargetState.BLOCKED: ("alert", ""),
    TargetState.FAILED: ("alert", ""),
    TargetState.TIMED_OUT: ("alert", ""),
}


def ledgers_for(tx: Tx, pairs: list[tuple[str, str]], now: Now) -> Ledgers:
    """What was spent in the last hour (deletes: for the commit, whenever) of the ledgers in `pairs`."""
    ledgers = Ledgers()
    for kind, scope in pairs:
        since = 0.0 if scope.startswith("commit:") else now.wall - WINDOW_S
        ledgers.spent[kind, scope], oldest = tx.ledger(kind, scope, since)
        if oldest is not None:
            ledgers.frees_at[kind, scope] = oldest
    return ledgers


def record_decision(
    tx: Tx,
    owner: str,
    source: str,
    decision: Decision,
    before: dict[Target, RolloutTarget],
    spends: list[Spend],
    now: Now,
) -> set[str]:
    """Write `decision` of unit `owner` for `source`; returns the clusters whose lanes have something new to do."""
    clusters: set[str] = set()
    rollout_id = decision.rollout.id if decision.rollout is not None else ""
    rows = [step.after for step in decision.steps if step.after is not None]
    if rows:
        tx.put_rollout_targets(rollout_id, rows)
    for row in rows:
        earlier = before.get(row.target)
        if row.state in AUDITED and (earlier is None or earlier.state is not row.state):
            level, reason = _told(row)
            _audit(tx, level, reason, now, source, rollout_id, row.target, state=str(row.state))
    actions: list[Action] = [action for step in decision.steps for action in step.actions]
    for action in [*actions, *decision.actions]:
        clusters |= _record_action(tx, owner, source, rollout_id, action, now)
    for spend in spends:
        tx.spend(spend.kind, spend.scope, spend.amount, now.wall)
    return clusters


def _told(row: RolloutTarget) -> tuple[str, Reason]:
    """The level and the sentence at which a target's new state is told."""
    level, sentence = AUDITED[row.state]
    if not sentence:
        return level, row.reason or Reason(str(row.state), f"{row.target} is {row.state}")
    what = sentence.format(to=row.to_digest[:12], baked=(row.baked_digest or "")[:12])
    return level, Reason(str(row.state), f"{row.target} {what}")


def _record_action(tx: Tx, owner: str, source: str, rollout_id: str, action: Action, now: Now) -> set[str]:
    match action:
        case Apply():
            # Trying again what was refused is no repair, and not worth a line each time.
            told = action.purpose == "heal" and not _refusals(tx, _assignment(tx, action.target, source))
            _record_apply(tx, owner, source, action, now)
            if told:
                message = f"live differs from the assigned release {action.digest[:12]}; repairing it"
                _audit(tx, "event", Reason("Healing", message), now, source, rollout_id, action.target)
            return {action.target.cluster}
        case Prune():
            _record_prune(tx, owner, action, now)
            return {action.target.cluster}
        case Abandon():
            _abandon(tx, action.target, action.reason)
            return {action.target.cluster}
        case Baked():
            assignment = _assignment(tx, action.target, source)
            tx.put_assignment(replace(assignment, baked=action.digest, due=None))
        case Contested():
            _record_contested(tx, _assignment(tx, action.target, source), action.fields, now)
        case Disabled():
            tx.put_assignment(replace(_assignment(tx, action.target, source), disabled_wall=action.since_wall))
        case Orphaned():
            tx.put_assignment(replace(_assignment(tx, action.target, source), orphaned_wall=action.since_wall))
        case Forgotten():
            tx.delete_inventory(action.target, [item.key for item in tx.inventory(action.target)])
            tx.delete_facts(action.target)
            tx.delete_assignment(action.target)
            message = f"cluster {action.target.cluster} was removed long ago: what is left there is not ours any more"
            _audit(tx, "event", Reason("OrphanForgotten", message), now, source, rollout_id, action.target)
        case Due():
            tx.put_assignment(replace(_assignment(tx, action.target, source), due=action.digest))
        case Quarantine():
            tx.put_quarantine(
                [
                    QuarantineRow(action.application, digest, action.reason, action.rollout, now.wall)
                    for digest in action.digests
                ]
            )
        case Alert():
            _record_alert(tx, source, rollout_id, action, now)
    return set()


def _assignment(tx: Tx, target: Target, source: str) -> Assignment:
    return tx.assignment(target) or Assignment(target, "", source)


def settle_contests(tx: Tx, application: str, now: Now) -> None:
    """A person, or Git, has decided who is right about what was fought over on the targets of `application`."""
    for assignment in tx.assignments(application=application):
        if assignment.contested:
            _record_contested(tx, assignment, (), now)


def _record_contested(tx: Tx, assignment: Assignment, fields: tuple[str, ...], now: Now) -> None:
    """Only `fields` are fought over from now on. Where a fight is over, what it had spent is given back, and no repair
    in a row is left of it, so that the next is the first."""
    over = [name for name in fought_over(assignment) if name not in fields]
    for name in over:
        scope = heal_scope(assignment.target, name)
        spent = tx.spent(HEALS_LEDGER, scope, now.wall - CONTESTED_WINDOW_S)
        if spent > 0:
            tx.spend(HEALS_LEDGER, scope, -spent, now.wall)
    streak = 0 if over else assignment.heal_streak
    tx.put_assignment(replace(assignment, contested="\n".join(fields), heal_streak=streak))


def record_results(tx: Tx, results: Sequence[IntentResult], healed: Iterable[tuple[Target, str]], now: Now) -> None:
    """What became of a lane's intents (T2). A repair counts once it is written: what was refused is no fight."""
    tx.finish_intents(results)
    for target, name in healed:
        tx.spend(HEALS_LEDGER, heal_scope(target, name), 1, now.wall)


def drifted(
    verdicts: Mapping[Target, TargetVerdict], intents: Mapping[Target, IntentSummary]
) -> dict[Target, TargetVerdict]:
    """Where something differs and nothing is on its way: only there a repair can be decided, and only of those it
    matters how often they were repaired and whether they are to be at all."""
    return {
        target: verdict
        for target, verdict in verdicts.items()
        if has_drifted(verdict) and not intents.get(target, _NOTHING_INTENDED).pending
    }


def heals_of(tx: Tx, verdicts: Mapping[Target, TargetVerdict], now: Now) -> dict[Target, dict[str, int]]:
    """How often each field that differs was repaired lately, by target, of those that have `drifted`."""
    since_wall = now.wall - CONTESTED_WINDOW_S
    return {
        target: {name: tx.spent(HEALS_LEDGER, heal_scope(target, name), since_wall) for name in drifted_fields(verdict)}
        for target, verdict in verdicts.items()
    }


def refused_heals(
    tx: Tx, assignments: Mapping[Target, Assignment], targets: Iterable[Target]
) -> dict[Target, dict[ObjectKey, Reason]]:
    """Why the last repair was refused, by target and object, of `targets`, which have `drifted`."""
    found = {target: _refusals(tx, assignments[target]) for target in targets if target in assignments}
    return {target: reasons for target, reasons in found.items() if reasons}


def _refusals(tx: Tx, assignment: Assignment) -> dict[ObjectKey, Reason]:
    """What was refused of the last repair in a row, whoever had decided it."""
    if not assignment.heal_streak:
        return {}
    refused = tx.refused_heals(assignment.target, assignment.digest, assignment.heal_count)
    return {intent.key: intent.reason for intent in refused if intent.reason is not None}


def report_only(tx: Tx, targets: Iterable[Target]) -> frozenset[str]:
    """Those applications of `targets`, which have `drifted`, whose drift is reported and not repaired."""
    applications = sorted({target.application for target in targets})
    return frozenset(name for name in applications if not rules_from_text(tx.apply_rules(name)).self_heal)


def give_up_former(tx: Tx, old: str, new: str) -> frozenset[str]:
    """Give up what is pending for `old`, which is to be `new`. Returns the clusters where something was."""
    pending = tx.pending_counts(old)
    for target in sorted(pending):
        _abandon(tx, target, Reason("Renamed", f"{old} is {new} now"))
    return frozenset(target.cluster for target in pending)


def rename(tx: Tx, source: str, old: str, new: str, now: Now) -> frozenset[str]:
    """What `old` has is looked after as `new` from now on; nothing is pending or under way there. Nothing is written
    for it: the objects get their new mark with the next release. Returns the clusters concerned."""
    targets = [row.target for row in tx.assignments(application=old)]
    tx.rename_application(old, new)
    message = f"{old} is called {new} from now on, on {len(targets)} clusters"
    tx.audit(AuditRow(now.wall, "event", "Renamed", message, source, new))
    return frozenset(target.cluster for target in targets)


def _abandon(tx: Tx, target: Target, reason: Reason) -> None:
    """Give up what is pending; an object whose deletion was only intended is an owned one again."""
    if tx.abandon_intents(target, reason):
        kept = [item for item in tx.inventory(target) if item.phase is InventoryPhase.DELETING]
        if kept:
            tx.put_inventory([replace(item, phase=InventoryPhase.OWNED) for item in kept])


def _record_apply(tx: Tx, owner: str, source: str, action: Apply, now: Now) -> None:
    """Assign the release (a heal assigns nothing new), intend its objects, and commit to writing each of them."""
    target = action.target
    _abandon(tx, target, Reason("Replaced", f"a newer {action.purpose} of the target replaces it"))
    assignment = _assignment(tx, target, source)
    if action.purpose == "heal":
        assignment = replace(
            assignment,
            heal_count=assignment.heal_count + 1,
            heal_streak=action.streak,
            heal_at_s=now.monotonic,
            heal_boot=now.boot,
        )
    else:
        if assignment.digest != action.digest:
            tx.delete_facts(target)
        due = None if assignment.due == action.digest else assignment.due
        revision = action.revision
        if action.purpose == "rollback":
            # What is gone back from may have baked here before it failed elsewhere: it is no place to go back to.
            assignment = replace(assignment, baked=action.digest)
            revision = tx.revision_of(target, action.digest)
        assignment = replace(
            assignment,
            digest=action.digest,
            source=source,
            revision=revision,
            heal_streak=0,
            due=due,
            contested="",
            orphaned_wall=None,
        )
    tx.put_assignment(assignment)
    release = tx.release(action.digest)
    assert release is not None, f"release {action.digest} of {target} is not stored"
    owned = tx.inventory(target)
    known = {item.key for item in owned}
    if action.purpose != "heal":
        # A deletion that was refused is not tried again for its release, and is for another one.
        tx.put_inventory(
            [replace(item, phase=InventoryPhase.OWNED) for item in owned if item.phase is InventoryPhase.DELETING]
        )
    intended: list[InventoryItem] = []
    intents: list[Intent] = []
    for order, manifest in enumerate(release.objects):
        key = ObjectKey.of(manifest)
        if key in action.without:
            continue
        api_version = str(manifest["apiVersion"])
        if key not in known:
            intended.append(InventoryItem(target, key, api_version, InventoryPhase.INTENDED))
        identity = intent_id(owner, action.purpose, target, Verb.APPLY, key, action.digest, action.attempt)
        intents.append(
            Intent(
                identity,
                owner,
                action.purpose,
                target,
                Verb.APPLY,
                key,
                api_version,
                action.digest,
                action.attempt,
                order,
                epoch=now.boot,
            )
        )
    if intended:
        tx.put_inventory(intended)
    tx.put_intents(intents)


def _record_prune(tx: Tx, owner: str, action: Prune, now: Now) -> None:
    intents = [
        Intent(
            intent_id(owner, "prune", action.target, Verb.DELETE, item.key, action.digest + item.uid, action.attempt),
            owner,
            "prune",
            action.target,
            Verb.DELETE,
            item.key,
            item.api_version,
            action.digest,
            action.attempt,
            order,
            epoch=now.boot,
        )
        for order, item in enumerate(action.items)
    ]
    tx.put_inventory([replace(item, phase=InventoryPhase.DELETING) for item in action.items])
    tx.put_intents(intents)


def _record_alert(tx: Tx, source: str, rollout_id: str, action: Alert, now: Now) -> None:
    body = {
        "level": action.level,
        "code": action.reason.code,
        "message": action.reason.message,
        "application": action.application,
        "rollout": rollout_id,
        "targets": [str(target) for target in action.targets],
    }
    if tx.put_outbox(action.key, "alert", body, now.wall):
        tx.audit(
            AuditRow(
                now.wall,
                action.level,
                action.reason.code,
                action.reason.message,
                source,
                action.application,
                rollout=rollout_id,
                data=body,
            )
        )


def _audit(
    tx: Tx, level: str, reason: Reason, now: Now, source: str, rollout_id: str, target: Target, state: str = ""
) -> None:
    data = {"state": state} if state else None
    tx.audit(
        AuditRow(
            now.wall,
            level,
            reason.code,
            reason.message,
            source,
            target.application,
            target.cluster,
            rollout_id,
            data=data,
        )
    )
