"""A Store that measures: how long each committed transaction took, and how many lost against another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from reconciler.shell.metrics import Metrics
from reconciler.shell.ports import ConflictError, Store, Tx

T = TypeVar("T")


class TimedStore:
    """`inner`, with its commits in `metrics`."""

    def __init__(self, inner: Store, metrics: Metrics) -> None:
        self._inner = inner
        self._metrics = metrics

    @property
    def epoch(self) -> int:
        return self._inner.epoch

    def given_up(self, cluster: str) -> int:
        """As Store.given_up."""
        return self._inner.given_up(cluster)

    async def transact(self, point: str, work: Callable[[Tx], T]) -> T:
        """As Store.transact."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        try:
            result = await self._inner.transact(point, work)
        except ConflictError:
            self._metrics.add("store_conflicts")
            raise
        self._metrics.observe("store_commit_duration_seconds", loop.time() - started_s)
        return result

    async def read(self, point: str, work: Callable[[Tx], T]) -> T:
        """As Store.read."""
        return await self._inner.read(point, work)

    async def prune_history(self, before_wall: float, keep: int) -> object:
        """As Store.prune_history."""
        return await self._inner.prune_history(before_wall, keep)

    async def close(self) -> None:
        """As Store.close."""
        await self._inner.close()
