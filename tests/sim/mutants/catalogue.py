"""The mutants: where the source is changed, and into what.

One is hunted in random stories, `seeds` of them, or, where those rarely come to the place, in one `story` of the test
suite (module:function): a test that passes without the mutant.

Not here are those whose guard has another one behind it, so that no story goes differently. A rollout halted for its
failures and made active is halted again by the same decision, for they still stand (one that halted because going back
failed within the budget would go on: no story has such a budget); and of the four guards that keep a job's
health from counting before our write is seen (pending intents, uid and generation, the release judged, what differs)
each one alone can be missed. They are hunted together here, and pinned one by one in tests/core/test_advance.py.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """`changes` are (old, new) in the source of `module`; each old text stands there exactly once. `story` is hunted in
    instead of seeds, if it is given."""

    name: str
    module: str
    changes: tuple[tuple[str, str], ...]
    seeds: int = 12
    story: str = ""

    @property
    def ground(self) -> str:
        """Where it is hunted."""
        return self.story.rpartition(":")[2] or f"{self.seeds} seeds"


def _mutant(
    name: str, module: str, old: str, new: str, *more: tuple[str, str], seeds: int = 12, story: str = ""
) -> Mutant:
    return Mutant(name, f"reconciler.{module}", ((old, new), *more), seeds, story)


MUTANTS = (
    _mutant("skip-bake", "core.advance", "if baking.bake_s >= timing.bake_s:", "if True:"),
    _mutant(
        "bake-counts-time-unobserved",
        "core.advance",
        "added = min(max(observed_at - row.observed_at, 0.0), intervals_max * timing.check_interval_s)",
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
        "a-verdict-of-another-release-counts",
        "core.advance",
        "    verdict = seen.verdict(row.target, assigned_digest(row))\n    if state is TargetState.BAKING:",
        "    verdict = seen.verdicts.get(row.target)\n    if state is TargetState.BAKING:",
        ("    if intents is not None and intents.pending:\n        return Step(row.target, row)\n", ""),
        story="test_hunts:test_while_a_write_gets_no_answer_the_release_before_does_not_bake_in_its_place",
    ),
    _mutant(
        "health-counts-before-our-write-is-seen",
        "core.advance",
        "    if intents is not None and intents.pending:\n        return Step(row.target, row)\n",
        "",
        (
            "    if verdict is None or not verdict.applied:\n        return Step(row.target, replace(",
            "    if verdict is None:\n        return Step(row.target, replace(",
        ),
        ("if verdict is None or doubtful or not verdict.applied:", "if verdict is None or doubtful:"),
        ("if verdict.sync in (Sync.DIFFERS, Sync.MISSING):", "if False:"),
        ("    if verdict.sync is not Sync.IN_SYNC:\n        return Step(\n", "    if False:\n        return Step(\n"),
        ("    if verdict.sync is not Sync.IN_SYNC and not is_ownership_only(verdict):\n", "    if False:\n"),
        story="test_hunts:test_while_a_write_is_refused_for_now_the_release_before_does_not_bake_in_its_place",
    ),
    _mutant(
        "ignore-max-concurrent",
        "core.decide",
        "if gate is None and work.held >= wave.max_concurrent:",
        "if False:",
    ),
    _mutant("open-the-next-wave-early", "core.decide", "if row.wave <= number and", "if row.wave <= number + 1 and"),
    _mutant(
        "a-halted-rollout-goes-on",
        "core.decide",
        "    if work.rollout.state is RolloutState.ACTIVE:\n        _start",
        "    if work.rollout.state in (RolloutState.ACTIVE, RolloutState.HALTED):\n        _start",
        story="test_hunts:test_when_a_wave_fails_in_the_middle_its_other_targets_never_start",
    ),
    _mutant(
        "a-paused-rollout-goes-on",
        "core.decide",
        "    if work.rollout.state is RolloutState.ACTIVE:\n        _start",
        "    if work.rollout.state in (RolloutState.ACTIVE, RolloutState.PAUSED):\n        _start",
        seeds=30,
    ),
    _mutant(
        "ignore-the-failure-budget",
        "core.rollout",
        "if len(failed) > wave.max_failures:",
        "if False:",
        seeds=30,
        story="test_hunts:test_when_a_wave_fails_in_the_middle_its_other_targets_never_start",
    ),
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
        'Apply(target, assignment.digest, "heal",',
        'Apply(target, row.to_digest if row is not None else assignment.digest, "heal",',
        story="test_hunts:test_a_target_that_waits_is_repaired_to_what_it_has_and_not_to_what_comes",
    ),
    _mutant(
        "heal-what-failed-or-goes-back",
        "core.decide",
        "HEALED = frozenset({TargetState.WAITING, TargetState.PROGRESSING, TargetState.BAKING})",
        "HEALED = frozenset(TargetState)",
        story="test_hunts:test_what_failed_is_left_as_it_is_for_people_to_look_at",
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
        "waiting = [row for row in work.rows if _may_go_back(work, row) and row.state not in done]",
        "waiting = [row for row in work.rows if can_go_back(row) and row.state in FAILURE_STATES]",
        ("if not any(_may_go_back(work, row) for row in owed):", "if True:"),
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
        story="test_hunts:test_a_write_whose_outcome_is_unknown_is_made_again_and_needs_no_repair",
    ),
    _mutant(
        "no-write-limit",
        "shell.limiter",
        "        if self._tokens >= 1.0 - 1e-6:",
        "        if True:",
        story="test_stories_at_rest:test_write_limits_hold_when_everything_comes_at_once",
    ),
    _mutant(
        "never-heal",
        "core.heal",
        "    if not has_drifted(verdict):",
        "    if True:",
        story="test_stories_at_rest:test_a_deleted_object_comes_back",
    ),
    _mutant(
        "what-goes-holds-up-what-is-beside-it",
        "core.heal",
        "return verdict.sync if len(staying) == len(verdict.objects) else worst_sync(staying)",
        "return verdict.sync",
        story="test_stories_held:test_what_is_beside_an_object_that_is_held_is_repaired",
    ),
    _mutant(
        "never-prune",
        "core.decide_source",
        "    if not items or target.cluster not in facts.goals:",
        "    if True:",
        story="test_stories_at_rest:test_a_dropped_object_is_deleted_after_its_target_is_healthy_and_baked",
    ),
    _mutant(
        "write-what-is-in-sync",
        "shell.perform",
        "        if comparison.sync is Sync.IN_SYNC:\n            return self._done(",
        "        if False:\n            return self._done(",
        ("if comparison.sync is Sync.ASK and", "if False and"),
        story="test_hunts:test_what_a_new_release_leaves_as_it_is_is_not_written",
    ),
    _mutant(
        "never-catch-up",
        "core.decide",
        "work.put(Step(row.target, row, (Due(row.target, row.to_digest),)))",
        "pass",
        story="test_stories:test_it_catches_up_to_the_last_good_release_when_the_newest_one_was_stopped_meanwhile",
    ),
)
