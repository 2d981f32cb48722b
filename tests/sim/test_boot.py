"""A daemon that starts again finds its clusters as they are: none is lost for not being declared yet."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from reconciler.core.model import Now, RolloutState, TargetState
from reconciler.shell.board import Board
from reconciler.sim.link import LinkState
from reconciler.sim.plan import Fault, FaultKind
from reconciler.sim.world import RESTART_S
from tests.sim.stories import Stage, installed, tell

POLICY = """\
apiVersion: reconciler.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: quick}
spec:
  waves:
  - {name: canary, select: {clusters: {ring: canary}}, bake: 20s, maxConcurrent: 1, maxFailures: 0}
  - {name: rest, size: 100%, bake: 300s, maxConcurrent: 1, maxFailures: 0, maxUnreachable: 0}
  progressDeadline: 5m
  onFailure: rollback
"""
FILES = {"policies/quick.yaml": POLICY}


class Repository:
    """Git calls of one kind fail, or are slow, from the moment at which that is set."""

    def __init__(self) -> None:
        self.failing: tuple[str, ...] = ()
        self.slow_s = 0.0

    async def io(self, point: str) -> Fault:
        """The fate of the call at `point`."""
        if not point.startswith("git "):
            return Fault()
        if point.startswith(self.failing):
            return Fault(FaultKind.LOST_BEFORE)
        await asyncio.sleep(self.slow_s)
        return Fault()


async def _baking(stage: Stage) -> None:
    await installed(stage)
    stage.push("app0", "1.1")
    await stage.reach(lambda: stage.states("app0").get("c1") == TargetState.BAKING)


async def _killed(stage: Stage) -> None:
    """Kill the daemon; the next one has just booted."""
    stage.world.kill()
    await stage.world.sleep(RESTART_S + 0.5)
    assert stage.world.daemon is not None


def _row(stage: Stage, cluster: str) -> tuple[TargetState, int]:
    row = stage.rows(stage.last("app0"))[cluster]
    return row.state, row.attempt


def test_a_start_loses_nothing_that_is_in_flight() -> None:
    async def story(stage: Stage) -> None:
        await _baking(stage)
        for _ in range(3):
            await _killed(stage)
            assert _row(stage, "c1") == (TargetState.BAKING, 1)
            await stage.world.sleep(40)
        assert _row(stage, "c1") == (TargetState.BAKING, 1)
        assert stage.audit("ClusterUnreachable") == []
        await stage.settle()
        assert stage.last("app0").state is RolloutState.SUCCEEDED
        assert _row(stage, "c1") == (TargetState.SUCCEEDED, 1)

    tell(story, files=FILES)


def test_a_start_keeps_what_is_in_flight_on_a_cluster_that_is_silent_just_then() -> None:
    async def story(stage: Stage) -> None:
        await _baking(stage)
        stage.world.clusters["c1"].link.set(LinkState.SILENT)
        await _killed(stage)
        await stage.world.sleep(40)
        assert _row(stage, "c1") == (TargetState.BAKING, 1)
        assert _row(stage, "c2") == (TargetState.WAITING, 0)
        stage.world.clusters["c1"].link.set(LinkState.UP)
        await stage.settle()
        assert _row(stage, "c1") == (TargetState.SUCCEEDED, 1)

    tell(story, files=FILES)


def test_a_start_while_the_remote_is_down_declares_from_the_mirror() -> None:
    repository = Repository()

    async def story(stage: Stage) -> None:
        await _baking(stage)
        repository.failing = ("git head",)
        await _killed(stage)
        await stage.world.sleep(400)
        assert _row(stage, "c1") == (TargetState.SUCCEEDED, 1)
        assert stage.daemon.board.listening_since is None

    tell(story, files=FILES, plan=repository)


def test_a_slow_repository_is_waited_for_within_the_usual_limit() -> None:
    repository = Repository()

    async def story(stage: Stage) -> None:
        await _baking(stage)
        repository.slow_s = 30.0
        await _killed(stage)
        await stage.world.sleep(20)
        assert stage.daemon.lanes == {}
        assert _row(stage, "c1") == (TargetState.BAKING, 1)
        repository.slow_s = 0.0
        await stage.settle()
        assert _row(stage, "c1") == (TargetState.SUCCEEDED, 1)

    tell(story, files=FILES, plan=repository)


def test_once_every_source_had_its_chance_unknown_is_unknown() -> None:
    repository = Repository()

    async def story(stage: Stage) -> None:
        await _baking(stage)
        repository.failing = ("git",)
        await _killed(stage)
        await stage.world.sleep(30)
        assert stage.daemon.lanes == {}
        assert stage.daemon.board.listening_since is None
        assert _row(stage, "c1") == (TargetState.UNREACHABLE, 1)
        repository.failing = ()
        await stage.settle()
        assert stage.last("app0").state is RolloutState.SUCCEEDED

    tell(story, files=FILES, plan=repository)


def test_a_cluster_that_is_declared_late_has_its_grace_from_then_on() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        await stage.world.sleep(1000)
        now = stage.daemon.ports.clock.now()
        fresh = replace(stage.daemon.lanes["c1"])  # made, and not running yet
        fresh.observer = stage.daemon.lanes["c1"].observer
        assert fresh.view().since == now.monotonic

    tell(story)


def test_the_board_listens_from_the_start_of_the_boot() -> None:
    board, early, late = Board(listening_since=5.0), Now(0.0, 100.0, 1), Now(0.0, 126.0, 1)
    view = board.view("c0", early)
    assert view is not None
    assert (view.heard_at, view.since, view.unreachable(early), view.unreachable(late)) == (None, 5.0, False, True)
    board.listening_since = None
    view = board.view("c0", early)
    assert view is not None
    assert view.unreachable(early)
