"""Stories of an object that somebody deleted and that finalizers hold: it is made again once it is gone."""

from __future__ import annotations

from reconciler.sim.scenarios import application_file
from tests.sim.stories import Stage, installed, path_of, tell


def test_who_holds_a_deleted_object_is_told_after_the_deadline() -> None:
    """Nothing can be repaired before it is gone, and whoever is to let it go may never do so."""

    async def story(stage: Stage) -> None:
        await installed(stage)
        cluster = stage.world.clusters["c1"]
        hold = {"metadata": {"finalizers": ["example.org/hold"]}}
        cluster.edit("", "ConfigMap", "app0", "app0-0", hold)
        first = stage.config("app0", "c1")
        assert first is not None
        cluster.delete("", "ConfigMap", "app0", "app0-0")
        await stage.world.sleep(500)
        assert stage.waits("app0") == {}
        await stage.world.sleep(200)
        assert stage.waits("app0") == {"sim/app0@c1": "FinalizersHold"}
        assert "held by example.org/hold: whoever runs that has to let it go" in stage.why("app0")
        held = stage.config("app0", "c1")
        assert held is not None
        assert held["metadata"]["finalizers"] == ["example.org/hold"]
        cluster.edit("", "ConfigMap", "app0", "app0-0", {"metadata": {"finalizers": None}})
        await stage.world.sleep(60)
        again = stage.config("app0", "c1")
        assert again is not None
        assert again["metadata"]["uid"] != first["metadata"]["uid"]
        assert stage.waits("app0") == {}

    tell(story, files={path_of("app0"): application_file("app0", "1.0", 1)})


def test_what_is_beside_an_object_that_is_held_is_repaired() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        cluster = stage.world.clusters["c1"]
        cluster.edit("", "ConfigMap", "app0", "app0-0", {"metadata": {"finalizers": ["example.org/hold"]}})
        cluster.delete("", "ConfigMap", "app0", "app0-0")
        for wait_s in (60, 900):  # before the deadline, and after it
            await stage.world.sleep(wait_s)
            cluster.edit("", "ConfigMap", "app0", "app0-1", {"data": {"tag": "by-hand"}})
            await stage.world.sleep(60)
            beside = cluster.read("", "ConfigMap", "app0", "app0-1")
            assert beside is not None
            assert beside["data"] == {"tag": "1.0"}
        assert stage.waits("app0") == {"sim/app0@c1": "FinalizersHold"}

    tell(story, files={path_of("app0"): application_file("app0", "1.0", 2)})


def test_what_is_beside_it_is_only_reported_where_the_policy_says_so() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        cluster = stage.world.clusters["c1"]
        cluster.edit("", "ConfigMap", "app0", "app0-0", {"metadata": {"finalizers": ["example.org/hold"]}})
        cluster.delete("", "ConfigMap", "app0", "app0-0")
        cluster.edit("", "ConfigMap", "app0", "app0-1", {"data": {"tag": "by-hand"}})
        await stage.world.sleep(900)
        beside = cluster.read("", "ConfigMap", "app0", "app0-1")
        assert beside is not None
        assert beside["data"] == {"tag": "by-hand"}
        assert stage.waits("app0") == {"sim/app0@c1": "SelfHealOff"}

    only_reported = "  - {type: apply, properties: {selfHeal: false}}\n"
    tell(story, files={path_of("app0"): application_file("app0", "1.0", 2) + only_reported})
