"""The outbox while whoever is to be told does not answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

from reconciler.core.model import Now
from reconciler.shell.context import Context
from reconciler.shell.outbox import RETRY_MAX_S, RETRY_START_S, OutboxUnit


class Down:
    """A notifier that never gets through."""

    async def send(self, key: str, kind: str, body: Mapping[str, Any]) -> None:
        """Fail as a network does."""
        del key, kind, body
        raise ConnectionRefusedError("nobody listens")


class OneMessage:
    """A store whose outbox holds one message for ever."""

    async def read(self, name: str, work: Callable[[Any], Any]) -> Any:
        """One message."""
        del name, work
        return [SimpleNamespace(key="k", kind="rollout", body="{}")]


class Still:
    """A clock that stands at zero."""

    def now(self) -> Now:
        """Zero."""
        return Now(0.0, 0.0, 1)


def test_waits_double_up_to_the_longest_and_stay_there_however_often_it_fails() -> None:
    log = logging.getLogger("reconciler.test.outbox")
    log.setLevel(logging.CRITICAL)
    unit = OutboxUnit(cast(Context, SimpleNamespace(store=OneMessage(), clock=Still(), log=log)), Down())

    async def play() -> list[float | None]:
        return [await unit.step() for _ in range(1100)]

    waits = asyncio.run(play())
    assert waits[:3] == [RETRY_START_S, 2 * RETRY_START_S, 4 * RETRY_START_S]
    assert set(waits[10:]) == {RETRY_MAX_S}
