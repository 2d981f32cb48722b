"""The mutants: where the source is changed, and into what. `seeds` is how many stories may be needed to find it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """`changes` are (old, new) in the source of `module`; each old text stands there exactly once."""

    name: str
    module: str
    changes: tuple[tuple[str, str], ...]
    seeds: int = 12


def _mutant(name: str, module: str, old: str, new: str, *more: tuple[str, str], seeds: int = 12) -> Mutant:
    return Mutant(name, f"reconciler.{module}", ((old, new), *more), seeds)


MUTANTS = (
    _mutant("skip-bake", "core.advance", "if baking.bake_s >= timing.bake_s:", "if True:"),
    _mutant(
        "bake-counts-time-unobserved",
        "core.advance",
        "added = min(max(observed_at - row.observed_at, 0.0), 2 * timing.check_interval_s)",
        "added = 10 * max(observed_at - row.observed_at, 0.0)",
    ),
    _mutant(
        "bake-keeps-what-was-accrued-before-a-restart",
        "core.advance",
        "state=state, reason=reason, bake_s=0.0, bake_resets=resets",
        "state=state, reason=reason, bake_resets=resets",
        ("        bake_s=row.bake_s if same_job else 0.0,\n", ""),
        ("if verdict.job_ids != row.job_ids or verdict.restarts != row.restarts:", "if False:"),
        ("    if not is_well(verdict):\n        return _reset(row", "    if False:\n        return _reset(row"),
        seeds=30,
    ),
    _mutant(
        "unknown-and-degraded-are-healthy",
        "core.advance",
        "return verdict.health in (Health.HEALTHY, Health.SUSPENDED)",
        "return True",
        ("if verdict.health is Health.DEGRADED:", "if False:"),
        ("verdict is None or verdict.health is Health.UNKNOWN or", "verdict is None or"),
    ),
    _mutant(
        "ignore-max-concurrent",
        "core.decide",
        "if gate is None and slots_held(work.rows) >= wave.max_concurrent:",
        "if False:",
    ),
    _mutant("open-the-next-wave-early", "core.decide", "if row.wave <= number and", "if row.wave <= number + 1 and"),
    _mutant(
        "a-halted-rollout-is-active-after-the-next-decision",
        "core.decide",
        "    work = _Work(rollout, list(rows))\n",
        "    if rollout.state is RolloutState.HALTED:\n        rollout = replace(rollout, state=RolloutState.ACTIVE)\n"
        "    work = _Work(rollout, list(rows))\n",
        seeds=30,
    ),
    _mutant(
        "a-paused-rollout-goes-on",
        "core.decide",
        "    if work.rollout.state is RolloutState.ACTIVE:\n        _start",
        "    if work.rollout.state in (RolloutState.ACTIVE, RolloutState.PAUSED):\n        _start",
        seeds=30,
    ),
    _mutant("ignore-the-failure-budget", "core.rollout", "if len(failed) > wave.max_failures:", "if False:", seeds=30),
    _mutant(
        "take-over-in-flight",
        "core.decide",
        "    if row.target in seen.held:\n        return Reason(",
        "    if False:\n        return Reason(",
        seeds=30,
    ),
    _mutant(
        "heal-to-what-git-asks-for",
        "core.heal",
        'heal = Apply(target, assignment.digest, "heal"',
        'heal = Apply(target, row.to_digest if row is not None else assignment.digest, "heal"',
        seeds=30,
    ),
    _mutant(
        "heal-what-failed-or-goes-back",
        "core.decide",
        "HEALED = frozenset({TargetState.WAITING, TargetState.PROGRESSING, TargetState.BAKING})",
        "HEALED = frozenset(TargetState)",
        seeds=30,
    ),
    _mutant(
        "go-back-to-what-was-there-before",
        "core.decide",
        '_started(row, work.rollout, "rollback", row.baked_digest, now)',
        '_started(row, work.rollout, "rollback", row.from_digest or row.baked_digest, now)',
        seeds=60,
    ),
    _mutant(
        "go-back-only-where-it-failed",
        "core.decide",
        "waiting = [row for row in work.rows if can_go_back(row) and row.state not in done]",
        "waiting = [row for row in work.rows if can_go_back(row) and row.state in FAILURE_STATES]",
        ("if not any(can_go_back(row) for row in owed):", "if True:"),
        ("            state = _rolled_back(work, owed)\n", "            state = RolloutState.ROLLED_BACK\n"),
        seeds=60,
    ),
    _mutant(
        "forget-quarantine",
        "shell.record",
        "            tx.put_quarantine(\n                [",
        "            len(\n                [",
    ),
    _mutant(
        "give-nothing-up",
        "shell.record",
        "    if tx.abandon_intents(target, reason):",
        "    if False:",
        seeds=30,
    ),
    _mutant(
        "delete-without-uid",
        "shell.kube_cluster",
        '            "preconditions": {"uid": uid},\n',
        "",
    ),
    _mutant(
        "take-an-unknown-outcome-for-done",
        "shell.perform",
        "    return Later(error.reason, error.retry_after_s, unreachable=not error.answered)",
        "    return IntentResult(intent.id, IntentState.DONE)",
    ),
    _mutant(
        "no-write-limit",
        "shell.limiter",
        "        if self._tokens >= 1.0 - 1e-6:",
        "        if True:",
    ),
    _mutant("never-heal", "core.heal", "if verdict.sync not in (Sync.DIFFERS, Sync.MISSING) or pending:", "if True:"),
    _mutant(
        "never-prune", "core.decide_source", "    if not items or target.cluster not in facts.goals:", "    if True:"
    ),
    _mutant(
        "write-what-is-in-sync",
        "shell.perform",
        "    if comparison.sync is Sync.IN_SYNC:\n        return _done(",
        "    if False:\n        return _done(",
        ("if comparison.sync is Sync.ASK and", "if False and"),
    ),
    _mutant(
        "never-catch-up", "core.decide", "work.put(Step(row.target, row, (Due(row.target, row.to_digest),)))", "pass"
    ),
)
