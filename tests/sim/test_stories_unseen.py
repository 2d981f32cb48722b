"""Stories of what cannot be seen now: whatever shows a state says that it is not known, and why."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.shell import live_view, queries
from reconciler.shell.explain import explain
from reconciler.sim.plan import Fault, FaultKind
from reconciler.web.probes import LoopLag, measure
from tests.sim.stories import Stage, installed, tell

NAME = "sim/app0"


class Failing:
    """No read of FlinkDeployments on c1 succeeds while it is `on`."""

    def __init__(self) -> None:
        self.on = False

    async def io(self, point: str) -> Fault:
        """The fate of the call at `point`."""
        hidden = self.on and point.startswith(("c1 GET", "c1 STREAM")) and "flinkdeployments" in point
        return Fault(FaultKind.SERVER_ERROR) if hidden else Fault()


async def gauges(stage: Stage, name: str, label: str, *values: str) -> list[float]:
    await measure(stage.daemon, LoopLag())
    return [stage.daemon.ports.metrics.value(name, **{label: value}) for value in values]


def of(found: list[dict[str, Any]], cluster: str) -> list[dict[str, Any]]:
    return [part for part in found if part["cluster"] == cluster]


@pytest.mark.parametrize("how", ["silent", "blind"])
def test_what_cannot_be_seen_is_nowhere_shown_as_it_was(how: str) -> None:
    plan = Failing()

    async def story(stage: Stage) -> None:
        await installed(stage)
        assert await gauges(stage, "targets_health", "health", "Healthy", "Unknown") == [3, 0]
        assert await gauges(stage, "targets_sync", "sync", "in-sync", "unknown") == [3, 0]
        assert len((await live_view.flink_status(stage.daemon, [NAME]))["objects"]) == 3
        plan.on = how == "blind"
        if how == "silent":
            stage.world.cut("c1")
        stage.world.clusters["c1"].server.end_watches()
        await stage.world.sleep(400)

        assert await gauges(stage, "targets_health", "health", "Healthy", "Unknown") == [2, 1]
        assert await gauges(stage, "targets_sync", "sync", "in-sync", "unknown") == [2, 1]
        status = await live_view.flink_status(stage.daemon, [NAME])
        assert sorted(part["cluster"] for part in status["objects"]) == ["c0", "c2"]
        (unseen,) = status["unseen"]
        code = unseen["reason"]
        assert (unseen["application"], unseen["cluster"]) == (NAME, "c1")
        assert (code == "ClusterUnreachable") == (how == "silent")
        assert (await queries.status(stage.daemon))["targets"]["healthy"] == 2
        (application,) = (await queries.apps(stage.daemon))["applications"]
        assert (application["healthy"], application["health"]) == (2, "Unknown")
        (cluster,) = of(queries.clusters(stage.daemon)["clusters"], "c1")
        assert (cluster["targets"], cluster["healthy"]) == (1, 0)
        assert (await explain(stage.daemon, NAME, "c1"))["reason"] == code
        for against in live_view.AGAINST:
            parts = of((await live_view.diff(stage.daemon, NAME, None, against))["objects"], "c1")
            assert {part["verdict"] for part in parts} == {"not-judgeable"}
        (part,) = of((await live_view.health(stage.daemon, NAME))["objects"], "c1")
        assert (part["health"], part["reason"]) == ("Unknown", code)

    tell(story, plan=plan)
