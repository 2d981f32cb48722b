"""Repairs that the server refuses stop or wait with its reason, and are no repairs; and how a fight ends."""

from __future__ import annotations

import pytest

from reconciler.shell.explain import explain
from reconciler.shell.steer import Order, sync
from reconciler.sim.admission import Answer, Review, Webhook
from reconciler.sim.scenarios import application_file
from tests.sim.stories import Stage, installed, path_of, tell


def with_conflicts(rule: str) -> str:
    """app0 with a policy `apply`."""
    return application_file("app0", "1.0").rstrip("\n") + f"\n  - {{type: apply, properties: {{conflicts: {rule}}}}}\n"


def test_a_field_that_is_not_to_be_taken_back_stops_the_target_with_the_managers_name() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        writes = len(stage.writes("c1"))
        stage.edit("app0", "c1", {"spec": {"image": "by/hand:1"}})
        await stage.world.sleep(3600)
        await stage.restart()
        await stage.world.sleep(3600)
        assert (stage.tag("app0", "c1"), len(stage.writes("c1"))) == ("1", writes)
        assert (stage.heals("c1"), stage.alerts()) == (1, ["FieldConflict"])
        answer = await explain(stage.daemon, "app0", "c1")
        assert answer["reason"] == "FieldConflict"
        assert "kubectl-edit: .spec.image" in answer["message"]
        assert "kubectl-edit" in stage.audit("FieldConflict")[0].message
        # It is tried again when a person asks for it, and still nobody is overruled.
        await sync(stage.daemon, "app0", Order("ada"))
        await stage.world.sleep(120)
        assert stage.waits("app0") == {"sim/app0@c1": "FieldConflict"}
        # Git decides: nobody needs to ask for it once more.
        stage.commit({path_of("app0"): with_conflicts("force")})
        await stage.looked()
        await stage.world.sleep(60)
        assert (stage.tag("app0", "c1"), stage.waits("app0")) == ("1.0", {})
        stage.checkers.at_rest()

    tell(story, files={path_of("app0"): with_conflicts("fail")})


def test_a_conflict_is_over_when_the_field_is_right_again() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.edit("app0", "c1", {"spec": {"image": "by/hand:1"}})
        await stage.world.sleep(300)
        assert stage.waits("app0") == {"sim/app0@c1": "FieldConflict"}
        live = stage.job("app0", "c2")
        assert live is not None
        stage.edit("app0", "c1", {"spec": {"image": live["spec"]["image"]}})
        await stage.world.sleep(60)
        assert stage.waits("app0") == {}
        stage.checkers.at_rest()

    tell(story, files={path_of("app0"): with_conflicts("fail")})


def test_what_else_differs_is_repaired_once_the_field_that_was_fought_over_is_right() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        await stage.world.sleep(700)
        whole = stage.job("app0", "c1")
        assert whole is not None
        for _ in range(120):
            if stage.tag("app0", "c1") != "wrong":
                stage.edit("app0", "c1", {"spec": {"image": "by/hand:wrong"}})
            await stage.world.sleep(1)
        assert stage.waits("app0") == {"sim/app0@c1": "Contested"}
        stage.edit("app0", "c1", {"spec": {"image": whole["spec"]["image"], "serviceAccount": "other"}})
        await stage.world.sleep(120)
        live = stage.job("app0", "c1")
        assert live is not None
        assert live["spec"] == whole["spec"]
        assert (stage.assignment("app0", "c1").contested, stage.waits("app0")) == ("", {})
        stage.checkers.at_rest()

    tell(story)


@pytest.mark.parametrize("code", [403, 422])
def test_a_repair_that_is_refused_is_told_with_its_reason_and_is_no_repair(code: int) -> None:
    def deny(review: Review) -> Answer:
        ours = review.object is not None and review.object["data"]["tag"] == "1.0"
        return Answer(allowed=not ours, message="frozen for the holidays", code=code)

    async def story(stage: Stage) -> None:
        await installed(stage)
        webhook = Webhook("freeze.example.com", deny, resources=("configmaps",))
        stage.world.clusters["c1"].server.webhooks.append(webhook)
        stage.world.clusters["c1"].edit("", "ConfigMap", "app0", "app0-0", {"data": {"tag": "by-hand"}})
        await stage.world.sleep(3600)
        answer = await explain(stage.daemon, "app0", "c1")
        assert answer["reason"] == "HealBackoff"
        assert "frozen for the holidays" in answer["message"]
        assert "repairs in a row" not in answer["message"]
        assert stage.heals("c1") == 1
        # It is tried again by itself, at the slowest pace.
        stage.world.clusters["c1"].server.webhooks.remove(webhook)
        await stage.world.sleep(400)
        assert stage.waits("app0") == {}
        stage.checkers.at_rest()

    tell(story)


def test_what_is_beside_an_object_that_is_fought_over_is_repaired() -> None:
    """And what is fought over is not, however often the others are; a person who asks settles all fights."""

    async def fight(stage: Stage, rounds: int) -> None:
        for _ in range(rounds):
            if stage.tag("app0", "c1") != "wrong":
                stage.edit("app0", "c1", {"spec": {"image": "by/hand:wrong"}})
            await stage.world.sleep(1)

    async def story(stage: Stage) -> None:
        await installed(stage)
        await stage.world.sleep(700)
        await fight(stage, 120)
        assert stage.waits("app0") == {"sim/app0@c1": "Contested"}
        jobs = stage.job_writes("c1")
        for _ in range(3):
            stage.world.clusters["c1"].delete("", "ConfigMap", "app0", "app0-0")
            await stage.world.sleep(700)
            assert stage.config("app0", "c1") is not None
        assert (stage.job_writes("c1"), stage.tag("app0", "c1")) == (jobs, "wrong")
        assert stage.alerts() == ["Contested"]
        assert stage.waits("app0") == {"sim/app0@c1": "Contested"}
        assert "is fought over with kubectl-edit: it is left alone" in stage.why("app0")
        await sync(stage.daemon, "app0", Order("ada"))
        await stage.world.sleep(60)
        assert (stage.tag("app0", "c1"), stage.waits("app0")) == ("1.0", {})
        stage.checkers.at_rest()

    tell(story)
