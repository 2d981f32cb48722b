"""Requests beside a loop: so many at a time, and the first that fails ends the loop.

The loop goes on while they are under way, and waits only where too many are. It is left when all of them have ended:
by then each has succeeded, or its error is raised. Where the loop is cancelled, so are they.

    async with beside(start, at_work, at_once=8) as requests:
        async for event in events:
            await requests.start(partial(confirm, event))
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from typing import Any

from reconciler.shell.kube_errors import KubeError

#: Starts a task that its owner may cancel.
Start = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Beside:
    """What is under way beside a loop. Made by `beside`."""

    def __init__(
        self,
        start: Start,
        at_work: Callable[[], AbstractContextManager[None]],
        at_once: int,
        on_failure: Callable[[], None],
    ) -> None:
        self.failure: KubeError | None = None
        self._start = start
        self._at_work = at_work
        self._slots = asyncio.Semaphore(at_once)
        self._on_failure = on_failure
        self._tasks: list[asyncio.Task[None]] = []  # in the order they started

    async def start(self, request: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin one more once there is room for it. Until it has ended, `at_work` is entered."""
        await self._slots.acquire()
        task = self._start(self._guarded(request))
        working = ExitStack()
        working.enter_context(self._at_work())
        self._tasks.append(task)

        def ended(_: asyncio.Task[None]) -> None:
            # Here and not in the task, for one that is cancelled before its first step runs nothing.
            working.close()
            self._tasks.remove(task)
            self._slots.release()

        task.add_done_callback(ended)

    async def _guarded(self, request: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await request()
        except KubeError as error:
            if self.failure is None:
                self.failure = error
                self._on_failure()

    def cancel(self) -> None:
        """Cancel all, the newest first."""
        for task in reversed(self._tasks):
            task.cancel()

    async def all_ended(self) -> None:
        """Wait until none is under way; whoever is cancelled while waiting takes them along."""
        try:
            while self._tasks:
                await asyncio.wait({self._tasks[0]})
        finally:
            self.cancel()


@asynccontextmanager
async def beside(
    start: Start, at_work: Callable[[], AbstractContextManager[None]], *, at_once: int
) -> AsyncIterator[Beside]:
    """Run the block with at most `at_once` requests beside it. Raises the block's own error, else the first KubeError
    of a request, which ends the block wherever it waits."""
    cut, within = asyncio.timeout(None), True

    def end_block() -> None:
        if within:
            cut.reschedule(asyncio.get_running_loop().time())

    requests = Beside(start, at_work, at_once, end_block)
    try:
        async with cut:
            try:
                yield requests
            finally:
                within = False
    except TimeoutError:
        if not cut.expired():
            raise
    except asyncio.CancelledError:
        requests.cancel()
        raise
    finally:
        await requests.all_ended()
    if requests.failure is not None:
        raise requests.failure
