"""What a person's orders come to, told on the whole daemon: abort and retry; and what the records say afterwards."""

from __future__ import annotations

from reconciler.core.model import RolloutState, TargetState
from reconciler.shell.steer import Order, abort, retry
from tests.sim.stories import Stage, tell

ORDER = Order("somebody", "because")


def test_an_aborted_canary_comes_along_when_the_rollout_is_tried_again() -> None:
    async def story(stage: Stage) -> None:
        await stage.settle()
        stage.push("app0", "1.1")
        await stage.arrives("app0", "c0", "1.1")
        [active] = stage.world.ask(lambda tx: tx.rollouts(active=True))
        await abort(stage.daemon, active.id, ORDER)
        await stage.looked()
        assert stage.tags("app0") == {"1.0", "1.1"}  # it stands where it stood
        await retry(stage.daemon, active.id, ORDER)
        await stage.settle()
        newest, before = stage.world.ask(lambda tx: tx.rollouts(limit=2))
        assert before.state is RolloutState.ABORTED
        assert newest.state is RolloutState.SUCCEEDED
        rows = stage.world.ask(lambda tx: tx.rollout_targets(newest.id))
        assert next((row.target.cluster, row.wave, row.state) for row in rows) == ("c0", 0, TargetState.SUCCEEDED)
        assert stage.tags("app0") == {"1.1"}

    tell(story, clusters=3)


def test_after_a_rollback_the_records_name_the_commit_that_runs() -> None:
    async def story(stage: Stage) -> None:
        good = stage.world.repository.refs["main"]
        await stage.settle()
        bad = stage.push("app0", "1.1-crash-loop")
        await stage.settle()
        assert stage.tags("app0") == {"1.0"}
        revisions = {row.revision for row in stage.world.ask(lambda tx: tx.assignments())}
        assert revisions == {good}
        assert bad != good

    tell(story, clusters=3)


def test_what_happens_is_counted() -> None:
    async def story(stage: Stage) -> None:
        await stage.settle()
        cluster = stage.world.clusters["c1"]
        cluster.edit("flink.apache.org", "FlinkDeployment", "app0", "app0", {"spec": {"image": "by/hand:1"}})
        await stage.world.sleep(120)
        stage.push("app0", "1.1-crash-loop")
        await stage.settle()
        metrics = stage.daemon.ports.metrics
        assert metrics.value("drift_found") == metrics.value("drift_healed") == 1
        assert metrics.value("alerts", level="alert") == 1
        assert metrics.value("watch_events") > 0
        assert metrics.value("watch_relists", reason="start") >= 3
        assert metrics.value("rollouts_ended", state="RolledBack") == 1

    tell(story, clusters=3)
