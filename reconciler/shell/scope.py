"""Scope: the only way a task starts.

A task that nobody owns loses its exception, outlives its daemon and starts in an order nobody can repeat. So tasks
belong to a scope: they start in the order they are named, an exception that a child did not handle is reported at once
(the daemon then ends: fail fast), and closing cancels the newest first, each one waited for before the next.

    scope = Scope("daemon", on_failure=lambda name, error: stop.set_result(error))
    scope.start("lane:eu-west-1a", lane.run())
    await scope.close(timeout_s=5)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from reconciler.shell.logs import event

_LOG = logging.getLogger(__name__)

OnFailure = Callable[[str, BaseException], None]


class Scope:
    """Named tasks of one owner, on whatever loop is running. `on_failure` gets the name and exception of every child
    that failed; it must not raise."""

    def __init__(self, name: str, on_failure: OnFailure) -> None:
        self.name = name
        self._on_failure = on_failure
        self._tasks: dict[str, asyncio.Task[None]] = {}  # in the order they started
        self._closed = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tasks that have not ended, in the order they started."""
        return tuple(self._tasks)

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start `work`, and return its task so that its owner can cancel it. A name is used by one task at a time.

        Nothing starts once the scope is closing: one of its own tasks whose turn to end has not come yet ends here, as
        cancelled; anybody else has made a mistake."""
        if self._closed or name in self._tasks:
            work.close()
            if self._closed and asyncio.current_task() in self._tasks.values():
                raise asyncio.CancelledError
            why = "is closing" if self._closed else f"has a task {name!r} already"
            raise RuntimeError(f"scope {self.name!r} {why}")
        task = asyncio.get_running_loop().create_task(work, name=f"{self.name}/{name}")
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._ended(name, done))
        return task

    async def stop(self, name: str) -> None:
        """Cancel one task and wait for its end; nothing happens if it has ended already."""
        if task := self._tasks.get(name):
            task.cancel()
            await asyncio.wait({task})

    async def close(self, timeout_s: float) -> tuple[str, ...]:
        """Cancel all tasks, newest first, each waited for before the next. What has not ended after `timeout_s` in all
        is cancelled and left behind; its names are returned, newest first. May be called twice."""
        self._closed = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        left_behind = []
        for name, task in reversed(list(self._tasks.items())):
            if task is asyncio.current_task():
                raise RuntimeError(f"task {name!r} cannot close the scope it runs in")
            task.cancel()
            _, pending = await asyncio.wait({task}, timeout=max(0.0, deadline - loop.time()))
            if pending:
                left_behind.append(name)
                event(_LOG, logging.ERROR, "scope.task.stuck", scope=self.name, task=name)
        # Done-callbacks of what ended last are still queued: let them run, so that no failure is missed.
        await asyncio.sleep(0)
        return tuple(left_behind)

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(name) is task:
            del self._tasks[name]
        if task.cancelled():
            return
        if error := task.exception():
            exc_info = (type(error), error, error.__traceback__)
            event(_LOG, logging.ERROR, "scope.task.failed", scope=self.name, task=name, exc_info=exc_info)
            self._on_failure(name, error)
