"""What the daemon does in situations that people will ask about, each told to its end: the answers are read from the
clusters' write logs and from the store."""

from __future__ import annotations

import pytest

from reconciler.core.model import RolloutKind, RolloutState, TargetState
from reconciler.shell.explain import explain
from reconciler.sim.behaviour import Behaviour
from reconciler.sim.scenarios import application_file, cluster_file, policy_file
from tests.sim.stories import Stage, installed, path_of, tell

# ---- a newer commit takes over -----------------------------------------------------------------------------------


def test_a_newer_commit_takes_waiting_targets_at_once_and_the_others_when_they_have_settled() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.1-slow-start")
        await stage.reach(lambda: stage.tag("app0", "c0") == "1.1-slow-start")
        old = stage.last("app0")
        stage.push("app0", "1.2")
        await stage.reach(lambda: len(stage.rollouts("app0")) == 3)
        await stage.reach(lambda: str(stage.rows(old)["c1"].state) == "Superseded", 5)
        rows = stage.rows(old)
        assert rows["c2"].state is TargetState.SUPERSEDED
        assert rows["c0"].state is TargetState.PROGRESSING
        assert stage.waits("app0")["sim/app0@c0"] == "HeldByRollout"
        await stage.reach(lambda: stage.rows(old)["c0"].state is TargetState.SUPERSEDED)
        assert stage.rows(old)["c0"].healthy_wall is not None  # it had settled: it was healthy at the old release
        await stage.settle()
        assert [str(each.state) for each in stage.rollouts("app0")] == ["Succeeded", "Superseded", "Succeeded"]
        assert stage.tags("app0") == {"1.2"}
        assert [stage.job_writes(name) for name in ("c0", "c1", "c2")] == [3, 2, 2]

    tell(story)


def test_a_newer_commit_takes_a_target_that_failed_and_that_is_no_failure_of_anything() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.1-never-starts")
        await stage.reach(lambda: stage.tag("app0", "c0") == "1.1-never-starts")
        stage.push("app0", "1.2")
        await stage.settle()
        assert [str(each.state) for each in stage.rollouts("app0")] == ["Succeeded", "Superseded", "Succeeded"]
        assert stage.tags("app0") == {"1.2"}
        assert stage.alerts() == []
        assert stage.world.ask(lambda tx: tx.quarantined()) == []

    tell(story)


def test_of_three_quick_commits_only_the_last_leaves_the_canary() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        for tag in ("1.1", "1.2", "1.3"):
            stage.push("app0", tag)
            await stage.arrives("app0", "c0", tag)
        await stage.settle()
        assert [str(each.state) for each in stage.rollouts("app0")] == [
            "Succeeded",
            "Superseded",
            "Superseded",
            "Succeeded",
        ]
        assert stage.tags("app0") == {"1.3"}
        assert [stage.job_writes(name) for name in ("c0", "c1", "c2")] == [4, 2, 2]
        assert stage.source().last_baked == stage.world.repository.refs["main"]

    tell(story, files={"policies/quick.yaml": policy_file().replace("20s", "60s")})


def test_a_revert_during_a_rollout_goes_back_where_it_has_been_and_nowhere_else() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.1")
        await stage.reach(lambda: stage.tag("app0", "c0") == "1.1")
        stage.push("app0", "1.0")
        await stage.settle()
        assert stage.tags("app0") == {"1.0"}
        assert [stage.job_writes(name) for name in ("c0", "c1", "c2")] == [3, 1, 1]
        assert set(stage.states("app0")) == {"c0"}
        assert stage.last("app0").state is RolloutState.SUCCEEDED
        assert stage.source().last_applied == stage.world.repository.refs["main"]

    tell(story, files={"policies/quick.yaml": policy_file().replace("20s", "60s")})


def test_a_revert_during_a_rollback_meets_it() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.1-crash-loop")
        await stage.reach(lambda: stage.last("app0").state is RolloutState.ROLLING_BACK)
        stage.push("app0", "1.0")
        await stage.settle()
        assert stage.tags("app0") == {"1.0"}
        assert [stage.job_writes(name) for name in ("c0", "c1", "c2")] == [3, 1, 1]
        assert stage.alerts() == ["TooManyFailures"]
        assert stage.source().last_baked == stage.world.repository.refs["main"]
        stage.checkers.at_rest()

    tell(story)


# ---- clusters come and go ----------------------------------------------------------------------------------------


def test_a_cluster_that_joins_later_gets_what_the_others_have() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        before = {name: len(stage.writes(name)) for name in ("c0", "c1", "c2")}
        stage.world.add_cluster("c3")
        stage.checkers.watch_cluster("c3")
        stage.commit({"clusters/c3.yaml": cluster_file("c3", "eu", "rest")})
        await stage.settle()
        assert stage.states("app0") == {"c3": "Succeeded"}
        assert stage.tag("app0", "c3") == "1.0"
        assert {name: len(stage.writes(name)) for name in before} == before

    tell(story)


def test_a_cluster_that_leaves_keeps_its_objects_and_nobody_touches_them() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.commit({"clusters/c2.yaml": None, path_of("app0"): application_file("app0", "1.1")})
        await stage.settle()
        assert stage.states("app0") == {"c0": "Succeeded", "c1": "Succeeded"}
        answer = await explain(stage.daemon, "app0")
        found = {each["cluster"]: each for each in answer["targets"]}
        assert found["c2"]["state"] == "Orphaned"
        assert found["c2"]["reason"] == "Orphaned"
        writes = len(stage.writes("c2"))
        stage.edit("app0", "c2", {"spec": {"image": "by/hand:1"}})
        await stage.world.sleep(600)
        assert stage.tag("app0", "c2") == "1"
        assert len(stage.writes("c2")) == writes
        stage.commit({"clusters/c2.yaml": cluster_file("c2", "us", "rest")})
        await stage.settle()
        assert stage.tags("app0") == {"1.1"}
        assert not stage.deletes()

    tell(story)


def test_a_cluster_that_leaves_in_the_middle_of_a_rollout_does_not_hold_it_up() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.1")
        await stage.reach(lambda: stage.tag("app0", "c0") == "1.1")
        stage.commit({"clusters/c2.yaml": None})
        await stage.settle()
        assert stage.states("app0") == {"c0": "Succeeded", "c1": "Succeeded", "c2": "Skipped"}
        assert stage.last("app0").state is RolloutState.SUCCEEDED
        assert stage.tag("app0", "c2") == "1.0"

    tell(story, files={"policies/quick.yaml": policy_file().replace("20s", "60s")})


def test_a_removed_application_keeps_its_objects() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.commit({path_of("app1"): None})
        await stage.settle()
        await stage.world.sleep(600)
        assert not stage.deletes()
        assert stage.tags("app1") == {"1.0"}
        assert {each["state"] for each in (await explain(stage.daemon, "app1"))["targets"]} == {"Orphaned"}

    tell(story, applications=2)


# ---- clusters out of reach ---------------------------------------------------------------------------------------


def test_an_unreachable_canary_holds_the_rollout_with_its_reason_and_no_storm_of_alerts() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.world.cut("c0")
        await stage.world.sleep(120)
        stage.push("app0", "1.1")
        await stage.looked()
        assert stage.waits("app0") == {"sim/app0@c0": "ClusterUnreachable", "wave:canary": "TooManyUnreachable"}
        lines = len(stage.audit("ClusterUnreachable"))
        await stage.world.sleep(3600)
        assert stage.last("app0").state is RolloutState.ACTIVE
        assert stage.tags("app0") == {"1.0"}
        assert stage.alerts() == []
        assert len(stage.audit("ClusterUnreachable")) == lines == 1
        stage.world.mend("c0")
        await stage.settle()
        assert stage.last("app0").state is RolloutState.SUCCEEDED
        assert stage.tags("app0") == {"1.1"}

    tell(story)


def lenient() -> str:
    """The policy, with one cluster in two that may be out of reach."""
    return policy_file().replace("  onFailure", "  maxUnreachable: 50%\n  onFailure")


@pytest.mark.parametrize("restarted", [False, True])
def test_a_cluster_that_was_out_of_reach_catches_up_when_it_returns(restarted: bool) -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.world.cut("c3", silent=True)
        await stage.world.sleep(120)
        stage.push("app0", "1.1")
        await stage.settle()
        assert stage.last("app0").state is RolloutState.SUCCEEDED
        assert stage.states("app0")["c3"] == "Unreachable"
        assert stage.waits("app0") == {"sim/app0@c3": "ClusterUnreachable"}
        assert stage.assignment("app0", "c3").due == stage.assignment("app0", "c0").digest
        if restarted:
            await stage.restart()
        before = {name: len(stage.writes(name)) for name in ("c0", "c1", "c2")}
        stage.world.mend("c3")
        await stage.settle()
        assert stage.last("app0").kind is RolloutKind.CATCH_UP
        assert stage.states("app0") == {"c3": "Succeeded"}
        assert stage.tags("app0") == {"1.1"}
        assert stage.assignment("app0", "c3").due is None
        assert {name: len(stage.writes(name)) for name in before} == before

    tell(story, clusters=4, files={"policies/quick.yaml": lenient()})


def test_it_catches_up_to_the_last_good_release_when_the_newest_one_was_stopped_meanwhile() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.world.cut("c3")
        await stage.world.sleep(120)
        stage.push("app0", "1.1")
        await stage.settle()
        stage.push("app0", "1.2-crash-loop")
        await stage.settle()
        assert stage.last("app0").state is RolloutState.ROLLED_BACK
        stage.world.mend("c3")
        await stage.settle()
        assert stage.last("app0").kind is RolloutKind.CATCH_UP
        assert stage.tags("app0") == {"1.1"}
        assert stage.waits("app0")["sim/app0@c3"] == "Quarantined"

    tell(story, clusters=4, files={"policies/quick.yaml": lenient()})


# ---- failures ----------------------------------------------------------------------------------------------------


def test_a_halted_rollout_stays_halted_until_a_new_digest_comes() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.1-crash-loop")
        await stage.reach(lambda: stage.last("app0").state is RolloutState.HALTED)
        halted = stage.last("app0")
        for _ in range(3):
            await stage.restart()
            assert stage.last("app0").id == halted.id
            assert stage.last("app0").state is RolloutState.HALTED
        stage.commit({"README.md": "says nothing new"})
        await stage.world.sleep(900)
        assert stage.last("app0").id == halted.id
        assert [stage.tag("app0", name) for name in ("c0", "c1", "c2")] == ["1.1-crash-loop", "1.0", "1.0"]
        assert stage.alerts() == ["TooManyFailures"]
        assert stage.waits("app0")[""] == "TooManyFailures"
        stage.push("app0", "1.2")
        await stage.settle()
        assert stage.tags("app0") == {"1.2"}
        assert [str(each.state) for each in stage.rollouts("app0")] == ["Succeeded", "Superseded", "Succeeded"]

    tell(story, on_failure="halt")


def test_a_first_installation_that_fails_halts_and_deletes_nothing() -> None:
    async def story(stage: Stage) -> None:
        await stage.reach(lambda: bool(stage.rollouts("app0")))
        await stage.reach(lambda: stage.last("app0").state is RolloutState.HALTED)
        await stage.world.sleep(3600)
        assert not stage.deletes()
        assert stage.tag("app0", "c0") == "1.0-fails-at-start"
        assert stage.writes("c1") == stage.writes("c2") == []
        assert len(stage.alerts()) == 1
        stage.push("app0", "1.1")
        await stage.settle()
        assert stage.tags("app0") == {"1.1"}

    tell(story, files={path_of("app0"): application_file("app0", "1.0-fails-at-start")})


def test_a_rollback_that_fails_halts_and_says_so() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.1-crash-loop")
        await stage.reach(lambda: stage.tag("app0", "c0") == "1.1-crash-loop")

        def never(_kind: str, _name: str, spec: object) -> Behaviour | None:
            return Behaviour.NEVER_STARTS if str(spec).count("app0:1.0") else None

        stage.world.behaviours.chooser = never
        await stage.reach(lambda: stage.last("app0").state is RolloutState.HALTED)
        reason = stage.last("app0").reason
        assert reason is not None
        assert reason.code == "RollbackFailed"
        assert stage.alerts() == ["TooManyFailures", "RollbackFailed"]
        writes = len(stage.writes())
        await stage.restart()
        await stage.world.sleep(3600)
        assert stage.last("app0").state is RolloutState.HALTED
        assert len(stage.writes()) == writes

    tell(story)


def test_what_was_stopped_is_not_started_again_under_another_commit() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.1-crash-loop")
        await stage.settle()
        assert stage.last("app0").state is RolloutState.ROLLED_BACK
        rollouts = len(stage.rollouts("app0"))
        await stage.restart()
        stage.commit({"README.md": "another commit"})
        await stage.looked()
        stage.push("app0", "1.0")
        await stage.looked()
        stage.push("app0", "1.1-crash-loop")
        await stage.looked()
        await stage.restart()
        assert len(stage.rollouts("app0")) == rollouts
        assert set(stage.waits("app0").values()) == {"Quarantined"}
        assert stage.tags("app0") == {"1.0"}
        assert stage.alerts() == ["TooManyFailures"]
        stage.push("app0", "1.1")
        await stage.settle()
        assert stage.tags("app0") == {"1.1"}

    tell(story)
