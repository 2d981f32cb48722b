"""Admit: spend what all rollouts and all healing share, and turn the rest into waits.

Blast-radius ledgers count restarts and changed targets per cluster and region in the last hour, and stateful deletes
per commit. A step that would overdraw one stays undone, with the reason and the time at which budget comes back. Going
back to a baked release spends, too, but is never refused: it is the way out.

    admit(decision, ledgers, limits, regions, now) -> (decision with fewer steps, what was spent)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from reconciler.core.actions import Apply, Decision, Ledgers, Limits, Prune, Step, Wait
from reconciler.core.model import Now, Reason

WINDOW_S = 3600.0


@dataclass(frozen=True, slots=True)
class Spend:
    """`amount` of `kind` (restarts, changed, deletes) in `scope` ("cluster:eu-1", "region:eu", "commit:fleet/0a1b")."""

    kind: str
    scope: str
    amount: int


def charges(step: Step, regions: Mapping[str, str], limits: Limits, commit: str) -> list[tuple[Spend, int]]:
    """What `step` would spend, each with its limit."""
    cluster = f"cluster:{step.target.cluster}"
    region = f"region:{regions.get(step.target.cluster, '')}"
    cost = step.cost
    found = []
    if cost.restarts:
        found.append((Spend("restarts", cluster, cost.restarts), limits.restarts_per_cluster))
        found.append((Spend("restarts", region, cost.restarts), limits.restarts_per_region))
    if cost.changed:
        found.append((Spend("changed", cluster, cost.changed), limits.changed_per_cluster))
    if cost.deletes:
        found.append((Spend("deletes", f"commit:{commit}", cost.deletes), limits.deletes_per_commit))
        for action in step.actions:
            if isinstance(action, Prune):
                scope = f"commit:{commit}/{step.target.application}"
                found.append((Spend("deletes", scope, cost.deletes), action.stateful_max))
    return found


def scopes_of(decision: Decision, regions: Mapping[str, str], commit: str) -> list[tuple[str, str]]:
    """The (kind, scope) pairs whose ledgers `admit` needs for `decision`, sorted."""
    pairs = {(c.kind, c.scope) for step in decision.steps for c, _ in charges(step, regions, Limits(), commit)}
    return sorted(pairs)


def is_rollback(step: Step) -> bool:
    """True if the step goes back to a baked release."""
    return any(isinstance(action, Apply) and action.purpose == "rollback" for action in step.actions)


def admit(
    decision: Decision, ledgers: Ledgers, limits: Limits, regions: Mapping[str, str], commit: str, now: Now
) -> tuple[Decision, list[Spend]]:
    """Split `decision` into what the ledgers allow and waits. `commit` is "<source>/<sha>"; `regions` maps a cluster to
    its region. Steps are admitted in order; one refused for want of budget does not stop a later one elsewhere."""
    spent = dict(ledgers.spent)
    admitted: list[Step] = []
    waits = list(decision.waits)
    spends: list[Spend] = []
    rechecks = [decision.recheck_at] if decision.recheck_at is not None else []
    for step in decision.steps:
        wanted = charges(step, regions, limits, commit)
        over = [
            (charge, limit)
            for charge, limit in wanted
            if spent.get((charge.kind, charge.scope), 0) + charge.amount > limit
        ]
        if over and not is_rollback(step):
            charge, limit = over[0]
            wait = _refusal(step, charge, limit, ledgers, now)
            waits.append(wait)
            if wait.recheck_at is not None:
                rechecks.append(wait.recheck_at)
            admitted.extend(_without_repair(step))
            continue
        for charge, _ in wanted:
            spent[charge.kind, charge.scope] = spent.get((charge.kind, charge.scope), 0) + charge.amount
            spends.append(charge)
        admitted.append(step)
    recheck_at = min(rechecks) if rechecks else None
    return replace(decision, steps=tuple(admitted), waits=tuple(waits), recheck_at=recheck_at), spends


def _without_repair(step: Step) -> list[Step]:
    """What remains of a refused step: that the target has drifted is true without the repair, too, so that its bake
    starts again. A refused start never happened."""
    if step.after is None or not any(isinstance(action, Apply) and action.purpose == "heal" for action in step.actions):
        return []
    rest = tuple(action for action in step.actions if not isinstance(action, Apply))
    return [Step(step.target, step.after, rest)]


def _refusal(step: Step, charge: Spend, limit: int, ledgers: Ledgers, now: Now) -> Wait:
    if any(isinstance(action, Prune) for action in step.actions):
        whose = f" of {step.target.application}" if charge.scope.endswith(f"/{step.target.application}") else ""
        message = f"{charge.amount} more would pass the limit of {limit} stateful deletes{whose} by this commit"
        return Wait(str(step.target), Reason("DeletesNeedApproval", message))
    message = f"{limit} {charge.kind} an hour in {charge.scope} are spent"
    frees_wall = ledgers.frees_at.get((charge.kind, charge.scope), now.wall)
    recheck_at = now.monotonic + max(frees_wall + WINDOW_S - now.wall, 1.0)
    return Wait(str(step.target), Reason("LedgerSpent", message), recheck_at)
