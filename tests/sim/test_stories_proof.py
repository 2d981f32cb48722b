"""Nothing leaves its canary unproven, and nothing is taken for proven because it is assigned: stories of commits that
cross, clusters that come back late, and releases that have no way back."""

from __future__ import annotations

import pytest

from reconciler.core.model import RolloutKind, RolloutState
from reconciler.shell.steer import Order, retry, sync
from reconciler.sim.link import LinkState
from reconciler.sim.scenarios import application_file, policy_file
from tests.sim.stories import Stage, installed, path_of, tell

LONG_BAKE = {"policies/quick.yaml": policy_file().replace("20s", "600s")}
AWAY = """\
apiVersion: reconciler.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: quick}
spec:
  waves:
  - {name: canary, select: {clusters: {ring: canary}}, bake: 20s, maxConcurrent: 1, maxFailures: 0}
  - {name: rest, size: 100%, bake: 20s, maxConcurrent: 1, maxFailures: 0, maxUnreachable: 1}
  progressDeadline: 5m
  onFailure: rollback
"""
CANARY_ONLY = """
  - type: override
    properties: {clusters: [c0], components: [{name: app0, properties: {job: {parallelism: 3}}}]}
"""


def test_a_release_whose_canary_was_taken_over_goes_behind_the_new_canary() -> None:
    """A crash-looping image is in its canary when a commit changes only that cluster: the image goes no further."""

    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.1-crash-loop")
        await stage.reach(lambda: stage.tag("app0", "c0") == "1.1-crash-loop")
        crashing = application_file("app0", "1.1-crash-loop").rstrip("\n") + CANARY_ONLY
        stage.commit({path_of("app0"): crashing}, "canary only")
        await stage.world.sleep(1800)
        assert {stage.tag("app0", name) for name in ("c1", "c2")} == {"1.0"}

    tell(story, files=LONG_BAKE)


def test_a_release_that_comes_back_while_its_canary_is_in_flight_has_that_canary_again() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.1-slow-start")
        await stage.reach(lambda: str(stage.states("app0")["c0"]) == "Progressing")
        for number, tag in ((3, "1.2"), (4, "1.1-slow-start")):
            stage.push("app0", tag)
            await sync(stage.daemon, None, Order("ada"))
            await stage.reach(lambda number=number: len(stage.rollouts("app0")) == number, 20)  # type: ignore[misc]
        assert "c0" in stage.rows(stage.last("app0"))
        await stage.settle(7200)
        found = stage.assignment("app0", "c0")
        assert found.baked == found.digest
        assert stage.tags("app0") == {"1.1-slow-start"}

    tell(story, files=LONG_BAKE)


def test_what_was_lost_in_flight_catches_up_through_the_gates() -> None:
    """Its rollout ended without it: the release is assigned, partly written, and proven nowhere on that cluster."""

    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.1")
        before, look = stage.assignment("app0", "c1").digest, stage.world.before_write
        assert look is not None

        def lose(cluster: str, request: object) -> None:
            look(cluster, request)  # type: ignore[arg-type]
            if cluster == "c1" and stage.assignment("app0", "c1").digest != before:
                stage.world.clusters["c1"].link.set(LinkState.REFUSED)

        stage.world.before_write = lose
        await stage.reach(lambda: not stage.world.clusters["c1"].link.up)
        stage.world.before_write = look
        await stage.settle()
        assert stage.last("app0").state is RolloutState.SUCCEEDED
        count, heals = len(stage.rollouts("app0")), stage.heals("c1")
        stage.world.clusters["c1"].link.set(LinkState.UP)
        await stage.reach(lambda: len(stage.rollouts("app0")) > count)
        assert stage.last("app0").kind is RolloutKind.CATCH_UP
        await stage.settle()
        await stage.world.sleep(120)
        found = stage.assignment("app0", "c1")
        assert (stage.tag("app0", "c1"), found.baked, found.due) == ("1.1", found.digest, None)
        assert stage.heals("c1") == heals
        assert stage.source().last_baked == stage.world.repository.refs["main"]

    tell(story, files={"policies/quick.yaml": AWAY})


def test_a_release_that_was_taken_back_while_a_cluster_was_away_never_gets_there() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.world.clusters["c2"].link.set(LinkState.REFUSED)
        await stage.world.sleep(120)
        for tag in ("1.1", "1.0"):
            stage.push("app0", tag)
            await stage.settle()
        stage.world.clusters["c2"].link.set(LinkState.UP)
        await stage.world.sleep(600)
        stage.push("app0", "1.2-crash-loop")
        await stage.settle()
        await stage.world.sleep(600)
        assert stage.tags("app0") == {"1.0"}

    tell(story, files={"policies/quick.yaml": AWAY})


def test_one_commit_deletes_no_more_jobs_than_the_policy_allows_an_application() -> None:
    """Twelve targets and the default of 10 %: one job goes, the others wait for a person."""
    extra = """\
  - name: extra
    type: flink-application
    properties:
      image: "registry.example.com/extra:1"
      flinkVersion: v1_20
      job: {jarURI: "local:///opt/flink/usrlib/job.jar", parallelism: 1}
  - name: config
"""
    both = application_file("app0", "1.0").replace("  - name: config\n", extra)

    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.commit({path_of("app0"): application_file("app0", "1.0")}, "drop the job extra")
        await stage.settle()
        await stage.world.sleep(600)
        assert sum(entry.key.kind == "FlinkDeployment" for entry in stage.deletes()) == 1
        waits = [wait for found in stage.daemon.board.waits.values() for wait in found]
        assert "DeletesNeedApproval" in {wait.reason.code for wait in waits}

    tell(story, clusters=12, files={path_of("app0"): both})


def with_nonce(tag: str, nonce: int) -> str:
    return application_file("app0", tag).replace(
        "parallelism: 2}",
        f'parallelism: 2, upgradeMode: stateless, savepointRedeployNonce: {nonce}, initialSavepointPath: "s3://{nonce}"}}',
    )


def test_no_automatic_rollback_sets_a_job_back_to_an_older_savepoint() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.commit({path_of("app0"): with_nonce("1.1-crash-loop", 2)}, "bad")
        await stage.reach(lambda: stage.last("app0").state is RolloutState.HALTED)
        await stage.world.sleep(300)
        job = stage.job("app0", "c0")
        assert job is not None
        assert job["spec"]["job"]["savepointRedeployNonce"] == 2
        assert stage.tag("app0", "c1") == "1.0"

    tell(story, files={path_of("app0"): with_nonce("1.0", 1)})


@pytest.mark.parametrize("on_failure", ["halt", "rollback"])
def test_a_rollout_that_stops_again_is_told_again_and_goes_back_once(on_failure: str) -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.world.after_commit.clear()  # the checkers know no person's retry: what was halted stays halted
        stage.push("app0", "1.1-crash-loop")
        ended = (RolloutState.HALTED, RolloutState.ROLLED_BACK)
        await stage.reach(lambda: stage.last("app0").state in ended)
        first, told = stage.last("app0"), len(stage.alerts())
        await retry(stage.daemon, first.id, Order("ada"))
        await stage.reach(lambda: stage.last("app0").state is RolloutState.ACTIVE)
        await stage.reach(lambda: stage.last("app0").state in ended)
        await stage.world.sleep(600)
        assert len(stage.alerts()) == 2 * told
        assert stage.tag("app0", "c1") == "1.0"

    tell(story, on_failure=on_failure)
