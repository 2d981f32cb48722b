"""Requests beside a loop: bounded, waited for, and the first failure ends the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from reconciler.core.model import Reason
from reconciler.shell.beside import beside
from reconciler.shell.kube_errors import KubeError, Outcome
from reconciler.sim.loop import run

Request = Callable[[], Coroutine[Any, Any, None]]


class Desk:
    """Requests that take a while, with a note of each end, and of how many were under way."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.working = self.working_max = 0
        self._started = 0

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        self.working += 1
        self.working_max = max(self.working, self.working_max)
        try:
            yield
        finally:
            self.working -= 1

    def takes(self, name: str, seconds: float, error: Exception | None = None) -> Request:
        async def request() -> None:
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                self.notes.append(f"{name} cancelled")
                raise
            if error is not None:
                raise error
            self.notes.append(name)

        return request


def refusal(code: str) -> KubeError:
    return KubeError(Reason(code, "no"), outcome=Outcome.TEMPORARY)


def test_the_loop_goes_on_and_its_end_waits_for_all() -> None:
    async def scenario() -> None:
        desk, loop = Desk(), asyncio.get_running_loop()
        began_s = loop.time()
        async with beside(desk.start, desk.at_work, at_once=3) as requests:
            for number in range(3):
                await requests.start(desk.takes(str(number), 3.0 - number))
            assert (loop.time() - began_s, desk.working) == (0.0, 3)
        assert desk.notes == ["2", "1", "0"]
        assert desk.working == 0

    run(scenario())


def test_at_most_so_many_at_a_time() -> None:
    async def scenario() -> None:
        desk, loop = Desk(), asyncio.get_running_loop()
        async with beside(desk.start, desk.at_work, at_once=4) as requests:
            for number in range(20):
                await requests.start(desk.takes(str(number), 1.0))
        assert (len(desk.notes), desk.working_max) == (20, 4)
        assert loop.time() == pytest.approx(5.0)

    run(scenario())


def test_the_first_failure_ends_the_loop_at_once_and_the_others_are_waited_for() -> None:
    async def scenario() -> None:
        desk = Desk()

        async def loop() -> None:
            async with beside(desk.start, desk.at_work, at_once=4) as requests:
                await requests.start(desk.takes("a", 2.0))
                await requests.start(desk.takes("b", 1.0, refusal("First")))
                await requests.start(desk.takes("c", 1.5, refusal("Second")))
                await asyncio.sleep(1000)

        with pytest.raises(KubeError) as caught:
            await loop()
        assert caught.value.reason.code == "First"
        assert (desk.notes, desk.working) == (["a"], 0)
        assert asyncio.get_running_loop().time() == pytest.approx(2.0)

    run(scenario())


@pytest.mark.parametrize("fails", [False, True], ids=["all-well", "one-fails-later"])
def test_the_error_of_the_loop_itself_comes_first(fails: bool) -> None:
    async def scenario() -> None:
        desk = Desk()

        async def loop() -> None:
            async with beside(desk.start, desk.at_work, at_once=4) as requests:
                await requests.start(desk.takes("a", 2.0, refusal("Later") if fails else None))
                raise refusal("Own")

        with pytest.raises(KubeError) as caught:
            await loop()
        assert caught.value.reason.code == "Own"
        assert desk.working == 0

    run(scenario())


@pytest.mark.parametrize("when_s", [0.0, 0.5, 1.5], ids=["before-they-run", "in-the-loop", "in-its-end"])
def test_whoever_cancels_the_loop_cancels_them(when_s: float) -> None:
    async def scenario() -> None:
        desk = Desk()

        async def loop() -> None:
            async with beside(desk.start, desk.at_work, at_once=4) as requests:
                await requests.start(desk.takes("a", 10.0))
                await requests.start(desk.takes("b", 10.0))
                await asyncio.sleep(1.0)

        task = desk.start(loop())
        await asyncio.sleep(when_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.1)
        assert desk.working == 0
        assert desk.notes in ([], ["b cancelled", "a cancelled"])

    run(scenario())
