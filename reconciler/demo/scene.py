"""A scene: what a step plays on, and the questions it asks of it.

A step commits, cuts cables and edits by hand through its scene, and waits with `until`, which lets the policy clock go
on. `at_rest` is the question that ends every step: has everything that Git asks for been done, or been refused for
good, and is every target in sync and healthy, as its cluster shows it now?

    await scene.commit(fleet.with_change(), "orders 4.3.0")
    await scene.until(scene.at_rest)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from reconciler.core.model import ENDED_STATES, Health, Reason, Rollout, RolloutState, Sync
from reconciler.demo.fleet import APPLICATION, DemoFleet
from reconciler.demo.outcome import ROWS_MAX, Mark
from reconciler.demo.stage import SOURCE, Stage
from reconciler.shell.ports import Tx

#: How often the store is asked while rollouts run, by the policy clock.
ASK_EVERY_S = 60.0
#: A step that takes longer than this by the policy clock has failed.
STEP_LIMIT_S = 6 * 3600.0
STEP_LIMIT_PER_CLUSTER_S = 900.0
#: Rollouts in these go on only when a person says so.
STOPPED = frozenset({RolloutState.HALTED, RolloutState.PAUSED})


class StepFailedError(Exception):
    """The step did not end as it was to. `result` is what it ended as, with the reason."""

    def __init__(self, result: str, why: str) -> None:
        super().__init__(f"{result}: {why}")


Condition = Callable[[], Awaitable[bool]]
Ticking = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Scene:
    """The stage during one step. `head` is the repository's newest commit; `say` tells the audience what is done to the
    fleet; `tick` is called after every move of the clock."""

    stage: Stage
    fleet: DemoFleet
    head: str
    mark: Mark
    say: Callable[[str], None]
    tick: Ticking
    started_s: float = field(init=False)
    _asked_at: float = field(init=False, default=float("-inf"))

    def __post_init__(self) -> None:
        self.started_s = self.stage.clock.now().monotonic

    @property
    def application(self) -> str:
        """The full name of the application that the steps change."""
        unit = self.stage.daemon.sources[SOURCE]
        assert unit.snapshot is not None
        return f"{unit.snapshot.fleet}/{APPLICATION}"

    async def commit(self, files: dict[str, bytes], subject: str) -> None:
        """Somebody pushes a commit."""
        self.head = await self.stage.commit(files, subject)
        self.fleet = self.fleet.committed(files)

    # ---- waiting -------------------------------------------------------------------------------------------------

    async def until(self, condition: Condition) -> None:
        """Let time go on until `condition` holds. Raises StepFailedError when that takes too long."""
        limit_s = STEP_LIMIT_S + STEP_LIMIT_PER_CLUSTER_S * len(self.stage.clusters)
        self._asked_at = float("-inf")
        while True:
            await self.stage.drained()
            await self.tick()
            if await condition():
                return
            if self.stage.clock.now().monotonic - self.started_s > limit_s:
                raise StepFailedError("TimedOut", f"not over after {limit_s / 3600:.0f} h; {self._obstacle()}")
            self.stage.advance()

    async def wait(self, seconds: float) -> None:
        """Let so much time pass."""
        until_s = self.stage.clock.now().monotonic + seconds

        async def passed() -> bool:
            return self.stage.clock.now().monotonic >= until_s

        await self.until(passed)

    def _obstacle(self) -> str:
        """What the daemon itself says it waits for."""
        unit = self.stage.daemon.sources[SOURCE]
        if unit.failure is not None:
            return unit.failure.message
        waits = [wait for _, found in sorted(self.stage.daemon.board.waits.items()) for wait in found]
        return waits[0].reason.message if waits else "nothing is waited for"

    def _ask_now(self) -> bool:
        """The store is asked when no rollout runs, and now and then while one does."""
        now_s = self.stage.clock.now().monotonic
        running = any(name.startswith("rollout:") for name in self.stage.daemon.hub.names)
        if running and now_s < self._asked_at + ASK_EVERY_S:
            return False
        self._asked_at = now_s
        return True

    async def active_rollouts(self) -> list[Rollout] | None:
        """The rollouts that have not ended; None when it is too early to ask again."""
        unit = self.stage.daemon.sources[SOURCE]
        if unit.good is None or unit.good.sha != self.head or not self._ask_now():
            return None
        return await self.stage.read(lambda tx: tx.rollouts(active=True, limit=ROWS_MAX))

    async def at_rest(self) -> bool:
        """True if nothing is on its way or owed any more and all is well, or if a rollout has stopped for good."""
        active = await self.active_rollouts()
        if active is None:
            return False
        if active:
            return all(rollout.state in STOPPED for rollout in active)
        return await self.stage.read(self._nothing_owed) and self._all_well()

    def _nothing_owed(self, tx: Tx) -> bool:
        """What Git asks for is assigned everywhere, but for releases that were stopped; no write is pending."""
        snapshot = self.stage.daemon.sources[SOURCE].snapshot
        assert snapshot is not None
        if tx.intents(pending=True):
            return False
        for name, application in snapshot.applications.items():
            assigned = {row.target.cluster: row.digest for row in tx.assignments(application=name)}
            stopped = {row.digest for row in tx.quarantined(name)}
            for cluster, digest in application.targets.items():
                if assigned.get(cluster) != digest and digest not in stopped:
                    return False
        return True

    def _all_well(self) -> bool:
        """Every lane has a fresh verdict on each of its targets, in sync and healthy."""
        daemon = self.stage.daemon
        now = daemon.ports.clock.now()
        if any(entry.view().unreachable(now) for entry in daemon.board.clusters.values()):
            return False
        snapshot = daemon.sources[SOURCE].snapshot
        assert snapshot is not None
        verdicts = daemon.board.verdicts.values()
        well = [verdict for verdict in verdicts if verdict.sync is Sync.IN_SYNC and verdict.health is Health.HEALTHY]
        return len(well) == len(verdicts) == snapshot.target_count


def stopped(rollout: Rollout) -> StepFailedError:
    """A rollout that did not end as it was to."""
    reason = rollout.reason or Reason("", "no reason is recorded")
    state = str(rollout.state) if rollout.state in ENDED_STATES | STOPPED else "Unfinished"
    return StepFailedError(state, f"rollout {rollout.id} of {rollout.application}: {reason.message}")
