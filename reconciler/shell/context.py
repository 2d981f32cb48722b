"""What every unit is given: its ports and the places where units meet."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from reconciler.core.actions import Limits
from reconciler.shell.board import Board
from reconciler.shell.hub import Hub
from reconciler.shell.metrics import Metrics
from reconciler.shell.ports import Clock, Store

#: What a lane is woken with when there may be intents or assignments that it has not seen.
INTENTS = ("intents",)


@dataclass(frozen=True, slots=True)
class Context:
    """Ports and meeting places. `installation` is the id of this installation; `rollout_opened` starts the unit of a
    rollout that was just stored."""

    store: Store
    clock: Clock
    hub: Hub
    board: Board
    metrics: Metrics
    log: logging.Logger
    limits: Limits
    installation: str
    check_interval_s: float
    rollout_opened: Callable[[str], None]
