"""Stories of what a release has no longer and nobody deletes: told while it is there, and forgotten afterwards."""

from __future__ import annotations

import asyncio

from reconciler.core.model import Target
from reconciler.shell.explain import explain
from reconciler.shell.leaving import RETRY_MAX_S
from reconciler.shell.queries import status
from reconciler.sim.plan import Fault, FaultKind
from reconciler.sim.store import Key
from tests.sim.stories import Stage, installed, path_of, tell

CLAIM = """\
      - apiVersion: v1
        kind: PersistentVolumeClaim
        metadata: {name: data}
        spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"""
CONFIG = """\
      - apiVersion: v1
        kind: ConfigMap
        metadata: {name: settings}
        data: {tag: "TAG"}
"""
MANIFESTS = """\
apiVersion: core.oam.dev/v1beta1
kind: Application
metadata: {name: app0}
spec:
  components:
  - name: app0
    type: manifests
    properties:
      objects:
OBJECTS
  policies:
  - {type: topology, properties: {clusterLabelSelector: {env: prod}, namespace: app0, createNamespace: true}}
"""
TARGET = Target("sim/app0", "c1")
#: Longer than any list of an unwatched kind is away.
RESYNC_S = 200.0


def manifests(*objects: str) -> str:
    return MANIFESTS.replace("OBJECTS", "".join(objects).rstrip("\n"))


async def bound(stage: Stage) -> None:
    """The first rollout, with somebody who gives each claim its volume."""

    def bind_and_look() -> bool:
        for cluster in stage.world.clusters.values():
            live = cluster.read("", "PersistentVolumeClaim", "app0", "data")
            if live is not None and (live.get("status") or {}).get("phase") != "Bound":
                status = {"phase": "Bound", "capacity": {"storage": "1Gi"}}
                cluster.server.apply_status(Key("", "PersistentVolumeClaim", "app0", "data"), status, manager="volumes")
        return stage.world.settled()

    await stage.looked()
    await stage.world.until(bind_and_look, 1800)


def rows(stage: Stage) -> set[str]:
    return {item.key.name for item in stage.world.ask(lambda tx: tx.inventory(TARGET))}


def test_a_claim_that_git_drops_is_told_while_it_is_there_and_asked_for_no_more() -> None:
    asked: list[str] = []

    async def story(stage: Stage) -> None:
        await bound(stage)
        stage.commit({path_of("app0"): manifests(CONFIG)}, "no claim")
        await stage.settle()
        await stage.world.sleep(60)
        assert stage.waits("app0") == {f"sim/app0@c{number}": "LeftBehind" for number in range(3)}
        said = await explain(stage.daemon, "app0", "c1")
        assert (said["state"], said["blocked_by"], said["reason"]) == ("Synced", None, "LeftBehind")
        assert "PersistentVolumeClaim app0/data" in said["message"]
        assert "delete it by hand" in said["message"]
        waits = (await status(stage.daemon))["waits"]
        assert [wait["reason"] for wait in waits] == ["LeftBehind"] * 3
        writes = len(stage.writes())
        stage.world.before_write = lambda _, request: asked.append(request.path)
        await stage.world.sleep(3600)
        assert len(stage.writes()) == writes
        assert not [path for path in asked if "persistentvolumeclaims/" in path], "it is there, as the lists show"
        await stage.restart()
        assert stage.waits("app0")["sim/app0@c1"] == "LeftBehind"
        stage.world.clusters["c1"].delete("", "PersistentVolumeClaim", "app0", "data")
        await stage.world.sleep(RESYNC_S)
        assert "sim/app0@c1" not in stage.waits("app0")
        assert rows(stage) == {"app0", "settings"}
        assert stage.waits("app0")["sim/app0@c2"] == "LeftBehind"
        stage.checkers.at_rest()

    tell(story, files={path_of("app0"): manifests(CONFIG, CLAIM)})


def test_a_claim_that_git_declares_again_is_ours_as_before() -> None:
    async def story(stage: Stage) -> None:
        await bound(stage)
        stage.commit({path_of("app0"): manifests(CONFIG)}, "no claim")
        await stage.settle()
        stage.commit({path_of("app0"): manifests(CONFIG, CLAIM)}, "a claim")
        await stage.settle()
        await stage.world.sleep(60)
        assert stage.waits("app0") == {}
        assert (await explain(stage.daemon, "app0", "c1"))["reason"] == "UpToDate"
        stage.checkers.at_rest()

    tell(story, files={path_of("app0"): manifests(CONFIG, CLAIM)})


class Failing:
    """Reads of what is on its way out fail while it is `on`, but for the first, which is the watch's."""

    def __init__(self) -> None:
        self.on = self.seen = False
        self.asked: list[float] = []

    async def io(self, point: str) -> Fault:
        """The fate of the call at `point`."""
        if not (self.on and point.startswith("c1 GET") and "configmaps/app0-1" in point):
            return Fault()
        if not self.seen:
            self.seen = True
            return Fault()
        self.asked.append(asyncio.get_running_loop().time())
        return Fault(FaultKind.SERVER_ERROR)


async def _held(stage: Stage) -> None:
    """An object that a finalizer held for too long: its deletion was given up on."""
    stage.push("app0", "1.0", objects=2)
    await installed(stage)
    stage.world.clusters["c1"].edit("", "ConfigMap", "app0", "app0-1", {"metadata": {"finalizers": ["example.org/a"]}})
    stage.push("app0", "1.1", objects=1)
    await stage.settle()
    await stage.world.sleep(1200)
    assert stage.waits("app0") == {"sim/app0@c1": "PruneFailed"}


def _let_go(stage: Stage) -> None:
    stage.world.clusters["c1"].edit("", "ConfigMap", "app0", "app0-1", {"metadata": {"finalizers": None}})


def test_a_deletion_that_could_not_be_confirmed_is_in_the_end_though_nothing_else_happens() -> None:
    plan = Failing()

    async def story(stage: Stage) -> None:
        await _held(stage)
        plan.on = True
        _let_go(stage)
        await stage.world.sleep(1200)
        assert "app0-1" in rows(stage)
        pauses = [after - before for before, after in zip(plan.asked, plan.asked[1:], strict=False)]
        assert max(pauses) >= 100, "it is asked for ever more seldom"
        plan.on = False
        await stage.world.sleep(RETRY_MAX_S + 10)
        assert rows(stage) == {"app0", "app0-0"}
        assert stage.waits("app0") == {}
        stage.checkers.at_rest()

    tell(story, plan=plan)


def test_what_went_while_the_daemon_was_down_is_forgotten_though_nothing_else_happens() -> None:
    async def story(stage: Stage) -> None:
        await _held(stage)
        stage.world.kill()
        _let_go(stage)
        await stage.world.sleep(150)
        assert rows(stage) == {"app0", "app0-0"}
        assert stage.waits("app0") == {}

    tell(story)


class Refusing:
    """Writes of one object never arrive."""

    async def io(self, point: str) -> Fault:
        """The fate of the call at `point`."""
        lost = point.startswith("c0 PATCH") and "configmaps/app0-1" in point
        return Fault(FaultKind.LOST_BEFORE) if lost else Fault()


def test_a_row_of_something_that_was_never_written_goes_too() -> None:
    """A release brought an object, and it was gone back from before that was written: nothing is there to be told."""

    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.1", objects=2)
        await stage.settle()
        assert stage.tag("app0", "c0") == "1.0"
        await stage.world.sleep(120)
        target = Target("sim/app0", "c0")
        assert {item.key.name for item in stage.world.ask(lambda tx: tx.inventory(target))} == {"app0", "app0-0"}
        assert stage.waits("app0").get(str(target)) != "LeftBehind"

    tell(story, plan=Refusing())
