"""The outbox: messages decided in a transaction are delivered after it, at least once, in order.

A message carries an idempotency key; a crash between the delivery and its record doubles it at most once.
"""

from __future__ import annotations

import logging
from functools import partial

from reconciler.shell.context import Context
from reconciler.shell.logs import event
from reconciler.shell.ports import Notifier, Tx

OUTBOX = "outbox"
RETRY_START_S = 5.0
RETRY_MAX_S = 600.0
#: Doublings after which the wait is at its longest anyway: a power of every failure would outgrow a float one day.
RETRY_DOUBLINGS_MAX = 10
BATCH = 50


class OutboxUnit:
    """Delivers what the outbox holds, whenever it is woken."""

    def __init__(self, context: Context, notifier: Notifier) -> None:
        self._context = context
        self._notifier = notifier
        self._failures = 0

    async def run(self) -> None:
        """Deliver until cancelled."""
        with self._context.hub.unit(OUTBOX) as unit:
            while True:
                retry_at = await self.step()
                unit.wake_at(self._context.clock, retry_at)
                await unit.wait()

    async def step(self) -> float | None:
        """Deliver what is queued. Returns when to try again what could not be delivered."""
        store, clock = self._context.store, self._context.clock
        while True:
            queued = await store.read("outbox", lambda tx: tx.outbox(sent=False, limit=BATCH))
            if not queued:
                return None
            for message in queued:
                try:
                    await self._notifier.send(message.key, message.kind, message.body)
                except OSError as error:
                    delay_s = min(RETRY_START_S * 2 ** min(self._failures, RETRY_DOUBLINGS_MAX), RETRY_MAX_S)
                    self._failures += 1
                    log = self._context.log
                    event(log, logging.WARNING, "outbox.failed", key=message.key, error=str(error), retry_s=delay_s)
                    return float(clock.now().monotonic + delay_s)
                self._failures = 0
                await store.transact("sent", partial(_mark_sent, key=message.key, wall=clock.now().wall))


def _mark_sent(tx: Tx, key: str, wall: float) -> None:
    tx.mark_sent(key, wall)
