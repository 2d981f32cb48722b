"""Stories of deletions: what a person marked stays, and what was refused is tried again with the next release."""

from __future__ import annotations

from typing import Any

from reconciler.core.ownership import OWNER_LABEL
from tests.sim.stories import Stage, installed, tell

DISABLED: dict[str, Any] = {"metadata": {"annotations": {"reconciler.dev/reconcile": "disabled"}}}


async def _dropping(stage: Stage) -> None:
    """A release drops an object, and bakes on the first cluster: there it is not deleted yet."""
    stage.push("app0", "1.0", 2)
    await installed(stage)
    stage.push("app0", "1.1", 1)
    await stage.reach(lambda: stage.states("app0").get("c0") == "Baking" and stage.tag("app0", "c0") == "1.1")


def _edit(stage: Stage, values: dict[str, Any]) -> None:
    """Somebody changes the object that is dropped, on the first cluster."""
    stage.world.clusters["c0"].edit("", "ConfigMap", "app0", "app0-1", values)


def test_nothing_is_deleted_of_a_target_that_a_person_told_us_to_leave_alone() -> None:
    async def story(stage: Stage) -> None:
        await _dropping(stage)
        stage.edit("app0", "c0", DISABLED)
        await stage.world.sleep(1500)
        assert stage.waits("app0")["sim/app0@c0"] == "ReconcileDisabled"
        assert stage.config("app0", "c0", 1) is not None
        stage.edit("app0", "c0", {"metadata": {"annotations": {"reconciler.dev/reconcile": None}}})
        await stage.settle()
        await stage.reach(lambda: stage.config("app0", "c0", 1) is None)

    tell(story)


def test_an_object_that_says_so_itself_is_not_deleted() -> None:
    async def story(stage: Stage) -> None:
        await _dropping(stage)
        _edit(stage, DISABLED)
        await stage.settle()
        await stage.world.sleep(300)
        assert stage.config("app0", "c0", 1) is not None
        assert stage.config("app0", "c1", 1) is None

    tell(story)


def test_a_deletion_that_was_refused_is_tried_again_with_the_next_release() -> None:
    async def story(stage: Stage) -> None:
        await _dropping(stage)
        live = stage.config("app0", "c0", 1)
        assert live is not None
        mark = live["metadata"]["labels"][OWNER_LABEL]
        _edit(stage, {"metadata": {"labels": {OWNER_LABEL: None}}})
        await stage.settle()
        await stage.world.sleep(300)
        assert stage.waits("app0") == {"sim/app0@c0": "PruneFailed"}
        _edit(stage, {"metadata": {"labels": {OWNER_LABEL: mark}}})
        await stage.world.sleep(1200)
        assert stage.config("app0", "c0", 1) is not None, "for its release it was refused for good"
        stage.push("app0", "1.2", 1)
        await stage.settle()
        await stage.reach(lambda: stage.config("app0", "c0", 1) is None)
        assert stage.waits("app0") == {}

    tell(story)
