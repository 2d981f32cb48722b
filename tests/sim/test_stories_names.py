"""Stories of names: an application that is called otherwise, and a job that would change its namespace."""

from __future__ import annotations

import asyncio

from reconciler.core.model import Target
from reconciler.core.ownership import owner_hash
from reconciler.sim.plan import Fault
from reconciler.sim.scenarios import FLINK, application_file
from reconciler.sim.world import SOURCE
from tests.sim.stories import Stage, installed, path_of, tell


def renamed(tag: str = "1.0", objects: int = 1) -> str:
    """What was app0 as `shop`: the same objects, under another name."""
    text = application_file("app0", tag, objects)
    named = "metadata: {name: shop, annotations: {reconciler.dev/renamed-from: app0}}"
    return text.replace("metadata: {name: app0}", named)


def test_a_renamed_application_keeps_what_it_has_and_only_the_mark_changes() -> None:
    async def story(stage: Stage) -> None:
        stage.push("app0", "1.0", objects=2)
        await installed(stage)
        jobs = {name: stage.job("app0", name) for name in stage.world.clusters}
        before = len(stage.writes())
        stage.commit({path_of("app0"): None, path_of("shop"): renamed(objects=2)})
        await stage.settle()
        assert len(stage.audit("Renamed")) == 1
        assert stage.world.ask(lambda tx: tx.assignments(application="sim/app0")) == []
        owner = owner_hash(stage.world.ask(lambda tx: tx.installation()), SOURCE, "sim/shop")
        for name, was in jobs.items():
            live = stage.job("app0", name)
            assert was is not None
            assert live is not None
            assert live["metadata"]["uid"] == was["metadata"]["uid"]
            assert live["metadata"]["labels"]["reconciler.dev/owner"] == owner
            assert live["metadata"]["generation"] == was["metadata"]["generation"]
            assert live["status"]["jobStatus"]["jobId"] == was["status"]["jobStatus"]["jobId"]
        assert not stage.deletes()
        # One write for each object, in waves, and from then on all is as it was.
        targets = [Target("sim/shop", name) for name in jobs]
        objects = len(stage.world.ask(lambda tx: [item for target in targets for item in tx.inventory(target)]))
        assert len(stage.writes()) - before == objects
        stage.commit({path_of("shop"): renamed("1.1")})
        await stage.settle()
        # What the next release drops still has its inventory, whichever mark it carries.
        assert {entry.key.name for entry in stage.deletes()} == {"app0-1"}
        stage.checkers.at_rest()

    tell(story)


def test_objects_that_are_dropped_in_the_commit_that_renames_are_deleted_too() -> None:
    async def story(stage: Stage) -> None:
        stage.push("app0", "1.0", objects=2)
        await installed(stage)
        stage.commit({path_of("app0"): None, path_of("shop"): renamed("1.1", objects=1)})
        await stage.settle()
        assert {entry.key.name for entry in stage.deletes()} == {"app0-1"}
        assert stage.tags("app0") == {"1.1"}
        stage.checkers.at_rest()

    tell(story)


def test_what_moves_under_the_former_name_ends_first() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.1")
        await stage.arrives("app0", "c0", "1.1")
        stage.commit({path_of("app0"): None, path_of("shop"): renamed("1.1")})
        await stage.reach(lambda: stage.waits("shop") == {"": "RenameWaits"})
        await stage.settle()
        assert len(stage.audit("Renamed")) == 1
        assert stage.tags("app0") == {"1.1"}
        assert stage.waits("shop") == {}
        stage.checkers.at_rest()

    tell(story)


class Slow:
    """No faults, but that writes on c1 take nine seconds once it is on."""

    on = False

    async def io(self, point: str) -> Fault:
        if self.on and point.startswith("c1 PATCH"):
            await asyncio.sleep(9.0)
        return Fault()


def test_a_write_that_is_under_way_under_the_former_name_ends_first() -> None:
    plan = Slow()

    async def story(stage: Stage) -> None:
        stage.push("app0", "1.0", objects=6)
        await installed(stage)
        world = stage.world
        plan.on = True
        for number in range(6):
            edit = {"data": {"tag": "by hand"}}
            world.clusters["c1"].edit("", "ConfigMap", "app0", f"app0-{number}", edit)
        await stage.reach(lambda: bool(world.ask(lambda tx: tx.intents(cluster="c1", pending=True))))
        stage.commit({path_of("app0"): None, path_of("shop"): renamed(objects=6)})
        await stage.reach(lambda: stage.waits("shop") == {"": "RenameWaits"})
        former = Target("sim/app0", "c1")
        assert former in stage.daemon.context.board.writing
        await stage.reach(lambda: bool(stage.audit("Renamed")))
        assert former not in stage.daemon.context.board.writing
        plan.on = False
        await stage.settle()
        # What came back of the last write is not known under a name that nobody has any more.
        assert world.ask(lambda tx: tx.inventory(former)) == []
        assert world.ask(lambda tx: tx.intents(application="sim/app0", pending=True)) == []
        assert len(stage.audit("Renamed")) == 1
        stage.checkers.at_rest()

    tell(story, plan=plan)


def test_a_former_name_that_is_still_declared_is_refused() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.commit({path_of("shop"): renamed()})
        await stage.settle()
        assert "invalid-value" in {code for file, _, code in stage.problems() if file == path_of("shop")}
        assert stage.audit("Renamed") == []
        assert stage.tags("app0") == {"1.0"}
        stage.checkers.at_rest()

    tell(story)


def test_a_job_that_would_change_its_namespace_stays_where_it_is() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        before = len(stage.writes())
        moved = application_file("app0", "1.1").replace("namespace: app0", "namespace: elsewhere")
        stage.commit({path_of("app0"): moved})
        await stage.settle()
        assert set(stage.waits("app0").values()) == {"StatefulMove"}
        assert len(stage.writes()) == before
        for cluster in stage.world.clusters.values():
            assert cluster.read(FLINK, "FlinkDeployment", "elsewhere", "app0") is None
        # What is there is still looked after, and the way back is a commit.
        stage.edit("app0", "c1", {"spec": {"image": "by/hand:wrong"}})
        await stage.world.sleep(60)
        assert stage.tag("app0", "c1") == "1.0"
        stage.push("app0", "1.1")
        await stage.settle()
        assert stage.tags("app0") == {"1.1"}
        stage.checkers.at_rest()

    tell(story)
