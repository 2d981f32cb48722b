"""Stories of two applications in one commit, one of which needs what the other brings."""

from __future__ import annotations

import pytest

from reconciler.core.model import RolloutState
from reconciler.sim.scenarios import FLINK, application_file
from tests.sim.stories import Stage, path_of, tell


@pytest.mark.parametrize(("needs", "brings"), [("app0", "app1"), ("app1", "app0")])
def test_who_needs_a_namespace_waits_for_the_application_that_brings_it(needs: str, brings: str) -> None:
    """Whichever is written first. The release is not to blame: nothing halts, and nobody is asked."""
    text = application_file(needs, "1.0").replace(f"namespace: {needs}, createNamespace: true", f"namespace: {brings}")

    async def story(stage: Stage) -> None:
        await stage.settle(within_s=7200)
        for name in (needs, brings):
            assert [rollout.state for rollout in stage.rollouts(name)] == [RolloutState.SUCCEEDED]
        for cluster in stage.world.clusters.values():
            assert cluster.read(FLINK, "FlinkDeployment", brings, needs) is not None
        assert stage.waits(needs) == {}
        stage.checkers.at_rest()

    tell(story, applications=2, files={path_of(needs): text})


def test_a_namespace_that_nobody_brings_is_named() -> None:
    text = application_file("app0", "1.0").replace("namespace: app0, createNamespace: true", "namespace: absent")

    async def story(stage: Stage) -> None:
        await stage.looked()
        await stage.world.sleep(3600)
        assert stage.states("app0") == {"c0": "Blocked", "c1": "Waiting", "c2": "Waiting"}
        assert stage.alerts() == ["NamespaceMissing"]
        assert 'namespaces "absent" not found' in str(stage.rows(stage.last("app0"))["c0"].reason)
        for cluster in stage.world.clusters.values():
            cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "absent"}})
        await stage.settle(within_s=7200)
        assert stage.last("app0").state is RolloutState.SUCCEEDED

    tell(story, files={path_of("app0"): text})
