"""Stories for places that random seeds rarely come to: tests like the others, and the hunting grounds of the mutants
that are found nowhere else (tests/sim/mutants/catalogue.py names them)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.core.model import RolloutState, TargetState
from reconciler.sim.behaviour import Behaviour
from reconciler.sim.plan import Fault, FaultKind
from reconciler.sim.scenarios import policy_file
from tests.sim.stories import Stage, installed, tell

JOBS = "PATCH /apis/flink.apache.org"
#: The canary bakes so long that there is time for something to happen to it.
LONG_BAKE = {"policies/quick.yaml": policy_file().replace("20s", "5m")}


@dataclass(slots=True)
class Losing:
    """Loses the next `left` calls whose point contains `fragment`, as `kind` says; all others go well."""

    kind: FaultKind
    fragment: str
    left: int = 0

    async def io(self, point: str) -> Fault:
        if self.left == 0 or self.fragment not in point:
            return Fault()
        self.left -= 1
        return Fault(self.kind)


# ---- writes ------------------------------------------------------------------------------------------------------


def test_a_write_whose_outcome_is_unknown_is_made_again_and_needs_no_repair() -> None:
    plan = Losing(FaultKind.LOST_BEFORE, JOBS)

    async def story(stage: Stage) -> None:
        await installed(stage)
        plan.left = 1
        stage.push("app0", "1.1")
        await stage.settle()
        assert plan.left == 0
        assert stage.tags("app0") == {"1.1"}
        assert [stage.job_writes(name) for name in ("c0", "c1", "c2")] == [2, 2, 2]
        assert stage.audit("Healing") == []

    tell(story, plan=plan)


def test_what_a_new_release_leaves_as_it_is_is_not_written() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.1")
        await stage.settle()
        for name in ("c0", "c1", "c2"):
            assert [entry.key.kind for entry in stage.writes(name)].count("Namespace") == 1
            assert stage.job_writes(name) == 2

    tell(story)


# ---- stopped rollouts --------------------------------------------------------------------------------------------


def test_when_a_wave_fails_in_the_middle_its_other_targets_never_start() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.1")
        await stage.reach(lambda: stage.tags("app0") == {"1.0", "1.1"})
        await stage.reach(lambda: stage.rows(stage.last("app0"))["c0"].state is TargetState.SUCCEEDED)

        def fails(_kind: str, _name: str, spec: Mapping[str, Any]) -> Behaviour | None:
            return Behaviour.FAILS if str(spec.get("image")).endswith(":1.1") else None

        stage.world.behaviours.chooser = fails
        await stage.reach(lambda: stage.last("app0").state is RolloutState.HALTED)
        untouched = {name for name in stage.world.clusters if stage.tag("app0", name) == "1.0"}
        assert untouched
        await stage.world.sleep(3600)
        assert stage.last("app0").state is RolloutState.HALTED
        assert {name for name in stage.world.clusters if stage.tag("app0", name) == "1.0"} == untouched
        assert stage.alerts() == ["TooManyFailures"]

    tell(story, clusters=9, on_failure="halt")


def test_a_target_that_waits_is_repaired_to_what_it_has_and_not_to_what_comes() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.1")
        await stage.arrives("app0", "c0", "1.1")
        stage.edit("app0", "c2", {"spec": {"image": "by/hand:1"}})
        await stage.arrives("app0", "c2", "1.0")
        assert stage.heals("c2") == 1
        assert stage.states("app0")["c2"] == "Waiting"
        await stage.settle()
        assert stage.tags("app0") == {"1.1"}

    tell(story, files=LONG_BAKE)


def test_what_failed_is_left_as_it_is_for_people_to_look_at() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.1-crash-loop")
        await stage.reach(lambda: stage.last("app0").state is RolloutState.HALTED)
        stage.edit("app0", "c0", {"spec": {"image": "by/hand:1"}})
        await stage.world.sleep(900)
        assert stage.tag("app0", "c0") == "1"
        assert stage.heals("c0") == 0
        assert stage.states("app0")["c0"] == "Failed"

    tell(story, on_failure="halt")


# ---- whose health it is ------------------------------------------------------------------------------------------


def test_while_a_write_gets_no_answer_the_release_before_does_not_bake_in_its_place() -> None:
    plan = Losing(FaultKind.BLACK_HOLE, f"c0 {JOBS}")

    async def story(stage: Stage) -> None:
        await installed(stage)
        plan.left = 3
        stage.push("app0", "1.1")
        await stage.reach(lambda: plan.left < 3)
        while plan.left:
            await stage.world.sleep(1)
            if plan.left:
                assert stage.states("app0")["c0"] == "Applying"
        await stage.settle()
        assert stage.tags("app0") == {"1.1"}
        assert stage.rows(stage.last("app0"))["c0"].bake_resets == 0

    tell(story, plan=plan)


def test_while_a_write_is_refused_for_now_the_release_before_does_not_bake_in_its_place() -> None:
    plan = Losing(FaultKind.SERVER_ERROR, f"c0 {JOBS}")

    async def story(stage: Stage) -> None:
        await installed(stage)
        plan.left = 1000
        stage.push("app0", "1.1")
        await stage.reach(lambda: plan.left < 1000)
        await stage.world.sleep(120)
        assert stage.states("app0")["c0"] == "Applying"
        plan.left = 0
        await stage.settle()
        assert stage.tags("app0") == {"1.1"}

    tell(story, plan=plan)
