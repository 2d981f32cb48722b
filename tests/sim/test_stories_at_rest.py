"""Stories of targets that are in no rollout, and of what holds whatever moves: pruning, drift, stops, limits, time."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from typing import Any

import pytest

from reconciler.core.actions import Limits
from reconciler.core.model import RolloutState, Target, TargetState
from reconciler.shell.daemon import DaemonSettings
from reconciler.shell.explain import explain
from reconciler.shell.steer import Order, sync
from reconciler.sim.admission import Answer, Review, Webhook
from reconciler.sim.scenarios import FLINK, application_file, cluster_file, policy_file
from reconciler.sim.world import SOURCE
from tests.sim.stories import Stage, installed, path_of, tell

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


def test_what_finalizers_hold_is_told_and_forgotten_once_it_has_gone() -> None:
    async def story(stage: Stage) -> None:
        stage.push("app0", "1.0", objects=2)
        await installed(stage)
        held = ("", "ConfigMap", "app0", "app0-1")
        stage.world.clusters["c1"].edit(*held, {"metadata": {"finalizers": ["example.org/hold"]}})
        stage.push("app0", "1.1", objects=1)
        await stage.settle()
        await stage.world.sleep(1200)
        assert stage.waits("app0") == {"sim/app0@c1": "PruneFailed"}
        assert "example.org/hold" in (await explain(stage.daemon, "app0", "c1"))["message"]
        # The rest of the target is looked after meanwhile.
        stage.edit("app0", "c1", {"spec": {"image": "by/hand:1"}})
        await stage.world.sleep(60)
        assert stage.tag("app0", "c1") == "1.1"
        stage.world.clusters["c1"].edit(*held, {"metadata": {"finalizers": None}})
        await stage.world.sleep(60)
        target = Target("sim/app0", "c1")
        assert {item.key.name for item in stage.world.ask(lambda tx: tx.inventory(target))} == {"app0", "app0-0"}
        assert stage.waits("app0") == {}
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
        whole = spec_of(stage)
        edits = [{"image": "by/hand:1"}, {"serviceAccount": "other"}, {"job": {"parallelism": 9}}]
        for _ in range(100):
            if spec_of(stage) == whole:
                # Never one field three times: that would be a fight.
                stage.edit("app0", "c1", {"spec": edits[stage.heals("c1") % 3]})
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


def spec_of(stage: Stage) -> Any:
    """The spec of app0's job on c1, None if it is not there."""
    live = stage.job("app0", "c1")
    return live["spec"] if live is not None else None


def test_a_field_that_somebody_fights_for_is_left_alone_and_told() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        await stage.world.sleep(700)

        async def fight(seconds: int) -> None:
            for _ in range(seconds):
                if stage.tag("app0", "c1") != "wrong":
                    stage.edit("app0", "c1", {"spec": {"image": "by/hand:wrong"}})
                await stage.world.sleep(1)

        await fight(120)
        assert stage.heals("c1") == 3
        assert stage.alerts() == ["Contested"]
        assert stage.waits("app0") == {"sim/app0@c1": "Contested"}
        field = "FlinkDeployment.flink.apache.org app0/app0: spec.image"
        assert stage.assignment("app0", "c1").contested == field
        # For ever: neither time nor a restart begins the fight anew.
        await stage.restart()
        await stage.world.sleep(3600)
        assert (stage.heals("c1"), stage.alerts()) == (3, ["Contested"])
        answer = await explain(stage.daemon, "app0", "c1")
        assert answer["reason"] == "Contested"
        assert "spec.image" in answer["message"]
        # A person has stopped the other writer, and asks for the application by name.
        await sync(stage.daemon, "app0", Order("ada"))
        await stage.world.sleep(60)
        assert stage.tag("app0", "c1") == "1.0"
        assert stage.heals("c1") == 4
        assert stage.assignment("app0", "c1").contested == ""
        stage.checkers.at_rest()

    tell(story)


def test_a_contest_that_ends_by_itself_is_over() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        await stage.world.sleep(700)
        for _ in range(120):
            if stage.tag("app0", "c1") != "wrong":
                stage.edit("app0", "c1", {"spec": {"image": "by/hand:wrong"}})
            await stage.world.sleep(1)
        assert stage.assignment("app0", "c1").contested
        live = stage.job("app0", "c2")
        assert live is not None
        stage.edit("app0", "c1", {"spec": {"image": live["spec"]["image"]}})
        await stage.world.sleep(60)
        assert stage.assignment("app0", "c1").contested == ""
        assert stage.waits("app0") == {}
        stage.checkers.at_rest()

    tell(story)


def with_apply(properties: str) -> str:
    """app0 with a policy `apply`."""
    return application_file("app0", "1.0").rstrip("\n") + f"\n  - {{type: apply, properties: {{{properties}}}}}\n"


def test_drift_is_only_reported_where_the_policy_says_so_and_the_policy_counts_at_once() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        rollouts = len(stage.rollouts("app0"))
        stage.commit({path_of("app0"): with_apply("selfHeal: false")})
        await stage.looked()
        stage.edit("app0", "c1", {"spec": {"image": "by/hand:wrong"}})
        await stage.world.sleep(120)
        assert stage.tag("app0", "c1") == "wrong"
        assert stage.waits("app0") == {"sim/app0@c1": "SelfHealOff"}
        (drift,) = stage.audit("Drift")
        assert drift.data is not None
        assert drift.data["changes"][0]["display"] == "spec.image"
        await stage.restart()
        assert stage.tag("app0", "c1") == "wrong"
        stage.commit({path_of("app0"): application_file("app0", "1.0")})
        await stage.looked()
        assert stage.tags("app0") == {"1.0"}
        assert len(stage.rollouts("app0")) == rollouts  # how objects are written is no release
        stage.checkers.at_rest()

    tell(story)


def test_the_history_says_who_changed_what_and_nothing_is_told_twice() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.edit("app0", "c1", {"spec": {"image": "by/hand:wrong"}})
        await stage.world.sleep(60)
        stage.world.clusters["c2"].delete("", "ConfigMap", "app0", "app0-0")
        await stage.world.sleep(60)
        stage.push("app0", "1.1")
        await stage.settle()
        await stage.restart()
        first, second = stage.audit("Drift")
        assert (first.application, first.cluster, first.source) == ("sim/app0", "c1", SOURCE)
        assert "spec.image is by/hand:wrong, declared" in first.message
        assert "was changed by " in first.message
        assert second.message == "ConfigMap app0/app0-0 was deleted"

    tell(story)


def test_an_ignored_field_is_left_to_whoever_writes_it() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        rule = 'objects: [{match: {kind: FlinkDeployment}, ignoreDifferences: ["spec.job.parallelism"]}]'
        stage.commit({path_of("app0"): with_apply(rule)})
        await stage.looked()
        before = len(stage.writes())
        stage.edit("app0", "c1", {"spec": {"job": {"parallelism": 9}}})
        await stage.world.sleep(300)
        assert len(stage.writes()) == before
        assert stage.audit("Drift") == []
        await stage.restart()
        stage.commit({path_of("app0"): with_apply(rule).replace("app0:1.0", "app0:1.1")})
        await stage.settle()
        live = stage.job("app0", "c1")
        assert live is not None
        assert (stage.tag("app0", "c1"), live["spec"]["job"]["parallelism"]) == ("1.1", 9)
        stage.checkers.at_rest()

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
        assert [stage.job_writes(name) for name in ("c0", "c1", "c2")] == [3, 3, 3]
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


# ---- webhooks ----------------------------------------------------------------------------------------------------


def test_a_value_that_a_webhook_rewrites_rolls_out_and_is_never_repaired() -> None:
    """Live never is what we declare, and an apply would not make it so: the server is asked, and asked once."""
    asked: list[str] = []

    def localize(review: Review) -> Answer:
        assert review.object is not None
        if review.dry_run:
            asked.append(review.name)
        tag = review.object["data"]["tag"]
        operation = {"op": "replace", "path": "/data/tag", "value": f"site-{tag}"}
        return Answer(patch=[] if tag.startswith("site-") else [operation])

    async def story(stage: Stage) -> None:
        webhook = Webhook("localize.example.com", localize, mutating=True, resources=("configmaps",))
        for cluster in stage.world.clusters.values():
            cluster.server.webhooks.append(webhook)
        await installed(stage)
        stage.push("app0", "1.1")
        await stage.settle()
        assert stage.last("app0").state is RolloutState.SUCCEEDED
        for name in stage.world.clusters:
            config = stage.config("app0", name)
            assert config is not None
            assert config["data"] == {"tag": "site-1.1"}
        # Once for each object and release; the canary's plan is no other object.
        assert len(asked) == 2 * len(stage.world.clusters)
        writes = len(stage.writes("c1"))
        await stage.world.sleep(3 * 3600)
        assert len(stage.writes("c1")) == writes
        assert stage.waits("app0") == {}
        # What somebody does by hand is drift as ever, and a repair ends with the webhook's value.
        stage.world.clusters["c1"].edit("", "ConfigMap", "app0", "app0-0", {"data": {"tag": "site-by-hand"}})
        await stage.world.sleep(120)
        config = stage.config("app0", "c1")
        assert config is not None
        assert config["data"] == {"tag": "site-1.1"}

    tell(story)
