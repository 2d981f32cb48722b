"""Retention: history is bounded. Once an hour what is older than the time kept is dropped from the store."""

from __future__ import annotations

import logging

from reconciler.shell.context import Context
from reconciler.shell.logs import event

RETENTION = "retention"
INTERVAL_S = 3600.0
HISTORY_KEPT_S = 30 * 24 * 3600.0
#: However old: the newest rows of each kind stay.
ROWS_KEPT = 1000


class RetentionUnit:
    """Drops old history whenever it is woken."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def run(self) -> None:
        """Wait for a wake-up, drop what is old, until cancelled."""
        context = self._context
        with context.hub.unit(RETENTION) as unit:
            while True:
                await unit.wait()
                before_wall = context.clock.now().wall - HISTORY_KEPT_S
                pruned = await context.store.prune_history(before_wall, ROWS_KEPT)
                event(context.log, logging.INFO, "retention.done", pruned=str(pruned))
