"""The model of the operator against the core's own idea of Flink: written apart, they have to agree."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.flink_effect import ChangeClass, Effect, flink_effect
from reconciler.core.health import evaluate
from reconciler.core.model import Facts
from reconciler.sim.flink_spec import Change, change, effective
from reconciler.sim.loop import run
from reconciler.sim.store import Event, Key
from tests.sim.flink import HIGH_AVAILABILITY, ROLLBACK, Watched, deployment, running

SAME = {
    Change.NONE: None,
    Change.IGNORE: ChangeClass.IGNORE,
    Change.SCALE: ChangeClass.SCALE,
    Change.UPGRADE: ChangeClass.UPGRADE,
    Change.SAVEPOINT_REDEPLOY: ChangeClass.REDEPLOY,
}

NONCES = st.none() | st.integers(1, 2)
JOBS = st.fixed_dictionaries(
    {"jarURI": st.just("local:///a.jar"), "parallelism": st.integers(1, 2)},
    optional={
        "upgradeMode": st.sampled_from(["stateless", "savepoint", "last-state"]),
        "state": st.sampled_from(["running", "suspended"]),
        "args": st.lists(st.sampled_from(["a", "b"]), max_size=1),
        "allowNonRestoredState": st.booleans(),
        "initialSavepointPath": st.sampled_from(["s3://a", "s3://b"]),
        "savepointTriggerNonce": NONCES,
        "checkpointTriggerNonce": NONCES,
        "savepointRedeployNonce": NONCES,
    },
)
CONFIGURATIONS = st.dictionaries(
    st.sampled_from(
        [
            "job.autoscaler.enabled",
            "parallelism.default",
            "kubernetes.operator.periodic.savepoint.interval",
            "pipeline.jobvertex-parallelism-overrides",
            "taskmanager.numberOfTaskSlots",
        ]
    ),
    st.sampled_from(["1", 1, True, "true"]),
    max_size=3,
)
SPECS = st.fixed_dictionaries(
    {"flinkVersion": st.just("v1_20"), "job": JOBS},
    optional={
        "image": st.sampled_from(["a:1", "a:2"]),
        "flinkConfiguration": CONFIGURATIONS,
        "restartNonce": NONCES,
        "podTemplate": st.sampled_from([{"metadata": {"labels": {"a": "b"}}}, {"metadata": {}}]),
        "logConfiguration": st.just({"log4j-console.properties": "x"}),
        "jobManager": st.fixed_dictionaries({"replicas": st.integers(1, 2)}),
        "taskManager": st.fixed_dictionaries(
            {"resource": st.fixed_dictionaries({"cpu": st.integers(1, 2)})}, optional={"replicas": st.integers(1, 2)}
        ),
    },
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(SPECS, SPECS, st.sampled_from(["native", "standalone"]))
def test_both_put_a_change_into_the_same_class(before: dict[str, Any], after: dict[str, Any], mode: str) -> None:
    before, after = before | {"mode": mode}, after | {"mode": mode}
    model = SAME[change(effective(before), effective(after), mode)]
    core = flink_effect(before, after).change_class
    # A nonce that goes is no change to the core and an ignored one to the operator: neither does anything.
    assert {model or ChangeClass.IGNORE} == {core or ChangeClass.IGNORE}


class Judged:
    """Health as a lane would judge it: at every event, and every ten seconds in between."""

    def __init__(self, watched: Watched) -> None:
        self.watched = watched
        self.facts = Facts()
        self.seen: list[str] = []
        watched.cluster.server.observe(self._observe)

    def _observe(self, key: Key, event: Event) -> None:
        if key.kind == "FlinkDeployment" and event.type != "DELETED":
            self.look(event.after.value)

    def look(self, value: dict[str, Any]) -> None:
        health, _, self.facts = evaluate(value, self.facts, self.watched.clock.now().wall)
        if not self.seen or self.seen[-1] != str(health):
            self.seen.append(str(health))

    async def during(self, seconds: float) -> list[str]:
        """The healths since the last call and during the next `seconds`, each change of them once."""
        for _ in range(int(seconds / 10)):
            await asyncio.sleep(10)
            self.look(self.watched.value())
        seen, self.seen = self.seen, []
        return seen


@pytest.mark.parametrize("mode", ["savepoint", "last-state", "stateless"])
def test_an_upgrade_that_goes_well_is_never_judged_degraded(mode: str) -> None:
    async def main() -> None:
        watched = Watched()
        judged = Judged(watched)
        watched.cluster.create(deployment(upgradeMode=mode))
        assert await judged.during(60) == ["Progressing", "Healthy"]
        watched.edit({"image": "shop/orders:2"})
        assert judged.seen[-1] == "Progressing"  # the old green status does not count for the new generation
        assert await judged.during(100) == ["Progressing", "Healthy"]
        watched.edit({"job": {"state": "suspended"}})
        assert await judged.during(60) == ["Progressing", "Suspended"]
        watched.edit({"job": {"state": "running"}})
        assert await judged.during(100) == ["Progressing", "Healthy"]

    run(main())


@pytest.mark.parametrize(
    ("marker", "within_s"),
    [("crash-loop", 300), ("fails-at-start", 120), ("pull-error", 600), ("rejected-spec", 300), ("never-starts", 2000)],
)
def test_every_misfortune_is_judged_degraded_in_the_end(marker: str, within_s: float) -> None:
    async def main() -> None:
        watched = await running(Watched())
        judged = Judged(watched)
        watched.edit({"image": f"shop/orders:2-{marker}"})
        seen = await judged.during(within_s)
        assert "Degraded" in seen
        assert seen[-1] != "Healthy"

    run(main())


def test_the_operators_own_rollback_is_a_failure_until_the_stable_spec_is_asked_for() -> None:
    async def main() -> None:
        watched = await running(Watched(), deployment(configuration=HIGH_AVAILABILITY | ROLLBACK))
        judged = Judged(watched)
        watched.edit({"image": "shop/orders:2-never-starts"})
        assert (await judged.during(700))[-1] == "Degraded"
        watched.edit({"image": "shop/orders:1"})
        assert (await judged.during(100))[-1] == "Healthy"

    run(main())


@pytest.mark.parametrize(
    ("spec", "effect", "state"),
    [
        ({"image": "shop/orders:2"}, Effect.RESTART, "kept"),
        ({"image": "shop/orders:2", "job": {"upgradeMode": "stateless"}}, Effect.RESTART, "lost"),
        ({"job": {"allowNonRestoredState": True}}, Effect.NONE, "none"),
    ],
)
def test_a_predicted_effect_is_what_the_model_does(spec: dict[str, Any], effect: Effect, state: str) -> None:
    async def main() -> None:
        watched = await running(Watched())
        before = watched.value()["spec"]
        watched.edit(spec)
        predicted = flink_effect(before, watched.value()["spec"], watched.status())
        assert (predicted.effect, str(predicted.state)) == (effect, state)
        await asyncio.sleep(100)
        assert watched.deployments() == (2 if effect is Effect.RESTART else 1)
        assert ("upgradeSavepointPath" in watched.status()["jobStatus"]) is (state == "kept")

    run(main())
