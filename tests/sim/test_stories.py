"""What the daemon does in situations that people will ask about, each told to its end: the answers are read from the
clusters' write logs and from the store."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

import pytest

from reconciler.core.actions import Limits
from reconciler.core.model import RolloutKind, RolloutState, TargetState
from reconciler.shell.daemon import DaemonSettings
from reconciler.shell.explain import explain
from reconciler.sim.behaviour import Behaviour
from reconciler.sim.scenarios import FLINK, application_file, cluster_file, policy_file
from tests.sim.stories import Stage, installed, path_of, tell

# ---- a newer commit takes over -----------------------------------------------------------------------------------


def job_writes(stage: Stage, cluster: str, application: str = "app0") -> int:
    """How often we wrote the FlinkDeployment there."""
    return sum(entry.key.kind == "FlinkDeployment" and entry.key.name == application for entry in stage.writes(cluster))


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
        assert [job_writes(stage, name) for name in ("c0", "c1", "c2")] == [3, 2, 2]

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
        assert [job_writes(stage, name) for name in ("c0", "c1", "c2")] == [4, 2, 2]
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
        assert [job_writes(stage, name) for name in ("c0", "c1", "c2")] == [3, 1, 1]
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
        assert [job_writes(stage, name) for name in ("c0", "c1", "c2")] == [3, 1, 1]
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


# ---- objects that a release no longer has ------------------------------------------------------------------------


def test_a_dropped_object_is_deleted_after_its_target_is_healthy_and_baked() -> None:
    async def story(stage: Stage) -> None:
        stage.push("app0", "1.0", objects=3)
        await installed(stage)
        stage.push("app0", "1.1", objects=1)
        await stage.settle()
        assert sorted(entry.key.name for entry in stage.writes("c0") if entry.verb == "delete") == ["app0-1", "app0-2"]
        for cluster, row in stage.rows(stage.last("app0")).items():
            deleted = [entry for entry in stage.writes(cluster) if entry.verb == "delete"]
            assert [entry.key.name for entry in deleted] == ["app0-2", "app0-1"]  # the reverse of applying
            assert row.baked_wall is not None
            assert all(entry.time >= row.baked_wall for entry in deleted)
            assert stage.config("app0", cluster, 0) is not None
        stage.checkers.at_rest()

    tell(story)


TWO_JOBS = """\
  - name: second
    type: flink-application
    properties:
      image: "registry.example.com/second:1.0"
      flinkVersion: v1_20
      job: {jarURI: "local:///opt/flink/usrlib/job.jar", parallelism: 2}
"""


@pytest.mark.parametrize(("max_deletes", "deleted"), [("10%", False), ("100%", True)])
def test_a_dropped_job_is_deleted_only_within_max_deletes(max_deletes: str, deleted: bool) -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.1")
        await stage.settle()
        jobs = [
            cluster.read(FLINK, "FlinkDeployment", "app0", "second")
            for _, cluster in sorted(stage.world.clusters.items())
        ]
        if deleted:
            assert jobs == [None, None, None]
            assert {entry.key.name for entry in stage.deletes()} == {"second"}
        else:
            assert None not in jobs
            assert not stage.deletes()
            assert set(stage.waits("app0").values()) == {"DeletesNeedApproval"}

    both = application_file("app0", "1.0").replace("  - name: config\n", TWO_JOBS + "  - name: config\n")
    policy = policy_file().replace("  onFailure", f"  maxDeletes: {max_deletes}\n  onFailure")
    tell(story, files={path_of("app0"): both, "policies/quick.yaml": policy})


# ---- drift -------------------------------------------------------------------------------------------------------


def test_repairs_of_one_target_come_ever_more_slowly() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        await stage.world.sleep(700)
        for second in range(100):
            if stage.tag("app0", "c1") != "wrong":
                stage.edit("app0", "c1", {"spec": {"image": f"by/{second}:wrong"}})
            await stage.world.sleep(1)
        at = [row.wall for row in stage.audit("Healing")]
        gaps = [later - earlier for earlier, later in itertools.pairwise(at)]
        assert len(at) == 5
        assert all(gap >= wanted for gap, wanted in zip(gaps, (2, 6, 18, 54), strict=True)), gaps
        assert stage.waits("app0") == {"sim/app0@c1": "HealBackoff"}
        await stage.restart()
        assert stage.assignment("app0", "c1").heal_streak == 5
        await stage.world.sleep(400)
        assert stage.tags("app0") == {"1.0"}
        assert stage.heals("c1") == 6
        assert stage.heals("c0") == stage.heals("c2") == 0

    tell(story)


def test_a_repair_leaves_what_others_have_set() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        before = len(stage.writes())
        stage.edit("app0", "c1", {"metadata": {"labels": {"team": "theirs"}}, "spec": {"restartNonce": 7}})
        await stage.world.sleep(120)
        assert len(stage.writes()) == before
        stage.edit("app0", "c1", {"spec": {"image": "by/hand:1", "serviceAccount": "other"}})
        await stage.world.sleep(60)
        live = stage.job("app0", "c1")
        assert live is not None
        assert stage.tag("app0", "c1") == "1.0"
        assert live["metadata"]["labels"]["team"] == "theirs"
        assert live["spec"]["restartNonce"] == 7
        assert len(stage.writes()) == before + 1

    tell(story)


def test_a_deleted_object_comes_back() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.world.clusters["c1"].delete(FLINK, "FlinkDeployment", "app0", "app0")
        stage.world.clusters["c2"].delete("", "ConfigMap", "app0", "app0-0")
        await stage.world.sleep(200)
        assert stage.tags("app0") == {"1.0"}
        assert stage.config("app0", "c2") is not None
        stage.checkers.at_rest()

    tell(story)


def test_reconcile_disabled_on_a_live_object_keeps_us_off_it() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        mark = "reconciler.dev/reconcile"
        stage.edit("app0", "c0", {"metadata": {"annotations": {mark: "disabled"}}, "spec": {"image": "by/hand:1"}})
        await stage.world.sleep(300)
        assert stage.tag("app0", "c0") == "1"
        assert stage.waits("app0") == {"sim/app0@c0": "ReconcileDisabled"}
        stage.push("app0", "1.1")
        await stage.looked()
        await stage.world.sleep(300)
        assert stage.waits("app0")["sim/app0@c0"] == "ReconcileDisabled"
        assert [stage.tag("app0", name) for name in ("c0", "c1", "c2")] == ["1", "1.0", "1.0"]
        stage.edit("app0", "c0", {"metadata": {"annotations": {mark: None}}})
        await stage.settle()
        assert stage.tags("app0") == {"1.1"}

    tell(story)


# ---- stops and limits --------------------------------------------------------------------------------------------


def test_a_suspended_cluster_is_read_and_never_written() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        plain = cluster_file("c0", "us", "canary")
        stage.commit({"clusters/c0.yaml": plain.replace("staleAfter", "suspend: true, staleAfter")})
        await stage.looked()
        writes = len(stage.writes("c0"))
        stage.edit("app0", "c0", {"spec": {"image": "by/hand:1"}})
        stage.edit("app0", "c1", {"spec": {"image": "by/hand:1"}})
        stage.push("app0", "1.1")
        await stage.looked()
        await stage.world.sleep(300)
        assert len(stage.writes("c0")) == writes
        assert [stage.tag("app0", name) for name in ("c0", "c1", "c2")] == ["1", "1.0", "1.0"]
        assert stage.waits("app0")["sim/app0@c0"] == "ClusterSuspended"
        await stage.restart()
        assert len(stage.writes("c0")) == writes
        stage.commit({"clusters/c0.yaml": plain})
        await stage.settle()
        assert stage.tags("app0") == {"1.1"}

    tell(story)


def test_write_limits_hold_when_everything_comes_at_once() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        for cluster in ("", *sorted(stage.world.clusters)):
            times = [entry.time for entry in stage.writes(cluster or None)]
            per_second = 2 if cluster else 4
            assert len(times) >= 30
            for start in times:
                # A second's worth may have been saved up before.
                in_window = sum(start <= at < start + 5 for at in times)
                assert in_window <= per_second * 6 + 1, (cluster, start, in_window)
        assert all(stage.tags(f"app{number}") == {"1.0"} for number in range(10))

    herd = DaemonSettings(writes_per_second=4.0, writes_per_second_and_cluster=2.0)
    tell(story, clusters=5, applications=10, settings=herd)


def test_restarts_of_one_hour_and_cluster_are_limited() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        for tag in ("1.1", "1.2", "1.3"):
            stage.push("app0", tag)
            await stage.looked()
            await stage.world.sleep(300)
        assert [job_writes(stage, name) for name in ("c0", "c1", "c2")] == [3, 3, 3]
        assert stage.waits("app0")["sim/app0@c0"] == "LedgerSpent"
        await stage.settle(2 * 3600)
        assert stage.tags("app0") == {"1.3"}

    settings = replace(DaemonSettings(), limits=Limits(restarts_per_cluster=2))
    tell(story, settings=settings)


# ---- jobs that do not run ----------------------------------------------------------------------------------------

LONG = policy_file().replace("20s", "30m").replace("10s", "10m")


def test_a_job_that_is_to_be_suspended_succeeds_without_a_bake() -> None:
    async def story(stage: Stage) -> None:
        await stage.settle(7200)
        took = stage.world.time()
        stage.commit({path_of("app0"): application_file("app0", "1.1").replace("job: {", "job: {state: suspended, ")})
        await stage.settle(600)
        assert stage.last("app0").state is RolloutState.SUCCEEDED
        assert stage.world.time() - took < 600
        for row in stage.rows(stage.last("app0")).values():
            assert (row.state, row.bake_s) == (TargetState.SUCCEEDED, 0.0)
            assert row.healthy_wall == row.baked_wall
        live = stage.job("app0", "c2")
        assert live is not None
        assert live["status"]["lifecycleState"] == "SUSPENDED"

    tell(story, files={"policies/quick.yaml": LONG})


def test_a_bounded_job_that_has_finished_succeeds_without_a_bake() -> None:
    async def story(stage: Stage) -> None:
        await stage.settle(1200)  # a bake is 30 minutes
        assert stage.last("app0").state is RolloutState.SUCCEEDED
        for cluster, row in stage.rows(stage.last("app0")).items():
            assert row.state is TargetState.SUCCEEDED
            assert row.reason is not None
            assert row.reason.code == "JobFinished"
            live = stage.job("app0", cluster)
            assert live is not None
            assert live["status"]["jobStatus"]["state"] == "FINISHED"

    batch = "flinkConfiguration: {execution.runtime-mode: BATCH}\n      job: {"
    application = application_file("app0", "1.0").replace("job: {", batch)
    tell(story, files={path_of("app0"): application, "policies/quick.yaml": LONG})


# ---- time --------------------------------------------------------------------------------------------------------


def canary_bake_s(jump_s: float) -> float:
    """How long the canary really baked, in a world whose wall clock jumps in the middle of it."""
    took = 0.0

    async def story(stage: Stage) -> None:
        nonlocal took
        await installed(stage)
        stage.push("app0", "1.1")
        await stage.reach(lambda: len(stage.rollouts("app0")) == 2)
        await stage.reach(lambda: stage.states("app0")["c0"] == "Baking")
        start = stage.world.time()
        await asyncio.sleep(100)
        assert stage.world.clock is not None
        stage.world.clock.jump_wall(jump_s)
        await stage.reach(lambda: stage.states("app0")["c0"] == "Succeeded", 3 * 3600)
        took = stage.world.time() - start
        await stage.settle()
        assert stage.tags("app0") == {"1.1"}

    tell(story, clusters=1, files={"policies/quick.yaml": policy_file().replace("20s", "5m")})
    return took


def test_a_clock_that_jumps_neither_shortens_a_bake_nor_lengthens_it() -> None:
    steady = canary_bake_s(0.0)
    assert 300 <= steady <= 340
    assert canary_bake_s(7200.0) == steady
    assert canary_bake_s(-7200.0) == steady
