"""The writes of one cluster that are under way: a few targets at a time, one request after another within each.

    queue:  target -> batch, as the store last said          take(), drop()
    start:  ready, wanted, at most AT_ONCE at a time          start_due()
    batch:  object after object: may I? -> perform -> result; all results of a batch in one transaction (T2)
    end:    whatever ended it, what the store says of the target is read again before it is judged or begun anew

A target that must wait does not hold up the others, nor does one whose requests take long: where it came to nothing, it
stands behind the others the next time, and leaves room for them. A cluster that does not answer, or takes no more for
now, holds up all of them. Silence is that of the cluster only where nothing was heard of it meanwhile: a webhook hangs
as well.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from reconciler.core.heal import drifted_fields
from reconciler.core.model import (
    Intent,
    IntentResult,
    IntentState,
    InventoryItem,
    Now,
    ObjectKey,
    Reason,
    Target,
    Verb,
)
from reconciler.shell.cluster_schemas import ClusterSchemas
from reconciler.shell.context import Context
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.limiter import WriteLimits
from reconciler.shell.live import NotSeen
from reconciler.shell.logs import event
from reconciler.shell.observe import Observer
from reconciler.shell.perform import Later, Wanted, perform
from reconciler.shell.record import record_results
from reconciler.shell.releases import SentRelease
from reconciler.shell.retries import RETRY_MAX_S, WHOLE_LANE, Retries
from reconciler.shell.scope import Scope

#: Targets of one cluster that are written at a time: one that waits for a slow webhook leaves room for the others.
AT_ONCE = 4
#: Of those, at most so many that were slow the last time: however many hang, there is room for those that do not.
SLOW_AT_ONCE = 2
#: An attempt that comes to nothing after so long has held its place for nothing. A healthy write takes some 10 ms.
SLOW_S = 5.0


@dataclass(frozen=True, slots=True)
class Batch:
    """What is pending for one target, in order, and its rows of the inventory; `source` is the repository in whose name
    it is written and `rules` say how, as text; `given_up` is what the store answered to that before they were read."""

    intents: Sequence[Intent]
    items: Mapping[ObjectKey, InventoryItem]
    source: str
    rules: str
    given_up: int


class Lane(Protocol):
    """What performing needs to know of its lane, and tells it."""

    @property
    def name(self) -> str: ...

    @property
    def observer(self) -> Observer: ...

    @property
    def suspended(self) -> bool:
        """Nothing is to be written on the cluster at all."""
        ...

    async def sent(self, intent: Intent, batch: Batch) -> SentRelease:
        """The release that `intent` belongs to."""
        ...

    def ended(self, target: Target) -> None:
        """A batch has ended: wake whom it concerns. Its target is to be read, taken in and judged again."""
        ...


@dataclass(slots=True)
class _Run:
    """A batch under way: the name of its task, when it began, and when it last asked the cluster for something
    (Now.monotonic)."""

    task: str
    began_s: float
    asked_s: float


@dataclass(slots=True)
class Performing:
    """The batches of one cluster. Tasks belong to `scope`."""

    context: Context
    lane: Lane
    kube: KubeCluster
    schemas: ClusterSchemas
    limits: WriteLimits
    scope: Scope
    log: logging.Logger
    retries: Retries = field(default_factory=Retries)
    _queue: dict[Target, Batch] = field(default_factory=dict)
    _running: dict[Target, _Run] = field(default_factory=dict)
    _unread: set[Target] = field(default_factory=set)
    _started: int = 0
    _looked_s: float = float("-inf")
    _limited_until_s: float = 0.0

    # ---- what is to be done ------------------------------------------------------------------------------------

    def about_to_read(self) -> None:
        """The store is read now: what ends from here on is not in what it says."""
        self._unread.clear()

    def take(self, target: Target, batch: Batch) -> None:
        """This is pending for `target`. It keeps its place in the queue until nothing is."""
        self._queue[target] = batch

    def drop(self, target: Target) -> None:
        """Nothing is pending for `target`."""
        self._queue.pop(target, None)

    def keep(self, assigned: Mapping[Target, object]) -> None:
        """Forget waits of targets with nothing pending, and doubts about those that are not `assigned` anything."""
        self.retries.keep(lambda target: target in self._queue or self.is_unsettled(target), assigned)

    def is_pending(self, target: Target) -> bool:
        """True if something is still to be written there: it is known why it differs."""
        return target in self._queue or target in self._running

    def is_unsettled(self, target: Target) -> bool:
        """True while the target is being written, or was and its rows are not read again: what is seen of it belongs
        neither to before nor to after."""
        return target in self._running or target in self._unread

    def is_unread(self, target: Target) -> bool:
        """True if a batch of `target` ended after the store was last read."""
        return target in self._unread

    def times(self) -> list[float]:
        """When to begin with what was not due yet when it was last looked at; what was, and found no room, begins when
        another one ends."""
        return [at_s for at_s in self.retries.times() if at_s > self._looked_s]

    @property
    def busy(self) -> bool:
        """Something is pending, or being written."""
        return bool(self._queue or self._running)

    # ---- doing it ----------------------------------------------------------------------------------------------

    def start_due(self) -> None:
        """Begin with what may begin now, in the order in which it was committed; of what was slow the last time with
        those that have waited longest, behind all others."""
        now = self.context.clock.now()
        self._looked_s = now.monotonic
        slow: list[Target] = []
        for target in list(self._queue):
            if len(self._running) >= AT_ONCE:
                return
            if self.is_unsettled(target) or not self.retries.ready(target, now):
                continue
            if self.retries.is_slow(target):
                slow.append(target)
            else:
                self._start(target, now)
        under_way = sum(self.retries.is_slow(target) for target in self._running)
        room = min(SLOW_AT_ONCE - under_way, AT_ONCE - len(self._running))
        for target in sorted(slow, key=self.retries.due_since)[: max(room, 0)]:
            self._start(target, now)

    def _start(self, target: Target, now: Now) -> None:
        self._started += 1
        name = f"write:{self.lane.name}/{target.application}#{self._started}"
        self._running[target] = _Run(name, now.monotonic, now.monotonic)
        self.scope.start(name, self._carry_out(target, self._queue[target]))

    async def close(self) -> None:
        """Cancel what is under way and wait for its end: results that came are recorded."""
        self._queue.clear()
        for run in list(self._running.values()):
            await self.scope.stop(run.task)

    async def _carry_out(self, target: Target, batch: Batch) -> None:
        with self.context.hub.hold(f"write:{self.lane.name}"), self.context.board.under_way(target):
            try:
                # What was tried before may have happened: then nothing is known before it is read again.
                later = await self._perform(target, batch, trust_cache=not self.retries.in_doubt(target))
                if later is None:
                    self.retries.done(target)
                else:
                    self._put_off(target, later)
            finally:
                del self._running[target]
                self._unread.add(target)
                self.lane.ended(target)

    def _put_off(self, target: Target, later: Later) -> None:
        """Try `target` later, and all others too where that is for a reason that holds for them."""
        now, run = self.context.clock.now(), self._running[target]
        self.retries.put_off(target, later, now, slow=now.monotonic - run.began_s >= SLOW_S)
        heard_at = self.lane.observer.heard_at
        silent = later.unreachable and (heard_at is None or heard_at <= run.asked_s)
        if silent or later.reason.code in WHOLE_LANE:
            self.retries.put_off_all(target, self._queue, later)

    async def _perform(self, target: Target, batch: Batch, *, trust_cache: bool) -> Later | None:
        """One target's intents, in order. A permanent failure gives up the rest of the batch, and what this cluster's
        schemas cannot take all of it; results are committed together (T2), whatever ends the batch."""
        intents = batch.intents
        results = await self.schemas.refused(
            intents, lambda intent: self.lane.sent(intent, batch), self.lane.observer.live
        )
        try:
            for intent in intents if not results else ():
                trusted = trust_cache and intent.epoch == self.context.clock.now().boot
                outcome = await self._perform_one(intent, batch, trust_cache=trusted)
                if isinstance(outcome, Later):
                    return outcome
                results.append(outcome)
                if outcome.state is IntentState.FAILED and intent.verb is Verb.APPLY:
                    results.extend(_given_up(intents, intent, outcome))
                    break
        finally:
            if results:
                await self._commit(target, results, intents)
        return None

    async def _perform_one(self, intent: Intent, batch: Batch, *, trust_cache: bool) -> IntentResult | Later:
        observer = self.lane.observer
        sent = await self.lane.sent(intent, batch)
        manifest = sent.objects.get(intent.key) if intent.verb is Verb.APPLY else None
        cached = observer.live(intent.key) if trust_cache and manifest is not None else None
        known = None if isinstance(cached, NotSeen) else cached
        rule = sent.by_object.get(intent.key)
        item = batch.items.get(intent.key)
        wanted = Wanted(manifest, item, sent.owner, sent.rules, rule, known, sent.former_owner)
        now = self.context.clock.now()
        self._running[intent.target].asked_s = now.monotonic
        cluster = self.kube.acting_for(sent.source)
        outcome = await perform(intent, wanted, cluster, observer, lambda: self._permit(intent, batch), now.wall)
        outcome = self.retries.believed(intent.target, outcome)
        result = "later" if isinstance(outcome, Later) else str(outcome.state)
        self.context.metrics.add("intents", verb=str(intent.verb), outcome=result)
        if isinstance(outcome, Later) or outcome.reason is not None:
            event(
                self.log,
                logging.INFO if isinstance(outcome, Later) else logging.WARNING,
                "lane.intent." + result,
                cluster=self.lane.name,
                application=intent.target.application,
                object=str(intent.key),
                reason=str(outcome.reason),
            )
        return outcome

    async def _permit(self, intent: Intent, batch: Batch) -> Later | None:
        """Asked right before each request that writes: is it still wanted, is there budget?"""
        name = self.lane.name
        if self.lane.suspended:
            return Later(Reason("ClusterSuspended", f"cluster {name} is suspended"), after_s=RETRY_MAX_S)
        if not await self._is_wanted(intent, batch):
            return Later(Reason("Abandoned", "it is not wanted any more"), after_s=0.0)
        now_s = self.context.clock.now().monotonic
        if now_s >= self._limited_until_s:  # who asks in vain is told a later moment than the one before
            self._limited_until_s = self.limits.take(now_s) or 0.0
        if now_s < self._limited_until_s:
            wait_s = self._limited_until_s - now_s
            return Later(Reason("WriteLimit", "the write limit is spent for now"), after_s=wait_s)
        self._running[intent.target].asked_s = now_s
        return None

    async def _is_wanted(self, intent: Intent, batch: Batch) -> bool:
        """False if it was given up since it was read."""
        store = self.context.store
        if store.given_up(self.lane.name) == batch.given_up:
            return True
        found = await store.read("permit", lambda tx: tx.intent(intent.id))
        return found is not None and found.state is IntentState.PENDING

    async def _commit(self, target: Target, results: list[IntentResult], intents: Sequence[Intent]) -> None:
        # What was seen before these writes must not be decided upon after they are recorded: live would seem to differ
        # with nothing pending. Transactions are done in the order they are asked for, so it is enough to take it back.
        verdict = self.context.board.verdicts.pop(target, None)
        done = {result.intent for result in results if result.state is IntentState.DONE}
        keys = {intent.key for intent in intents if intent.purpose == "heal" and intent.id in done}
        healed = [(target, name) for name in drifted_fields(verdict, keys)] if verdict is not None and keys else []
        now = self.context.clock.now()
        # Where another daemon has the store by now, this raises FencedError and ends the daemon: it writes no more.
        point = f"result:{self.lane.name}"
        await self.context.store.transact(point, lambda tx: record_results(tx, results, healed, now))


def _given_up(intents: Sequence[Intent], failed: Intent, outcome: IntentResult) -> list[IntentResult]:
    """What follows a refused write of the same target is not sent."""
    rest = intents[intents.index(failed) + 1 :]
    why = outcome.reason.message if outcome.reason is not None else ""
    reason = Reason("EarlierWriteFailed", f"an earlier write of the target was refused: {why}")
    return [IntentResult(intent.id, IntentState.ABANDONED, reason) for intent in rest]
