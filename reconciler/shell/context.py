"""What every unit is given: its ports and the places where units meet."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from reconciler.core.actions import Limits
from reconciler.shell.board import Board
from reconciler.shell.hub import Hub
from reconciler.shell.metrics import Metrics
from reconciler.shell.ports import Clock, Store

#: What a lane is woken with when there may be intents or assignments that it has not seen, of whatever application.
INTENTS = ("intents",)


def intents_of(application: str) -> tuple[str, str]:
    """The same, of one application: the lane reads what the store says of that one alone."""
    return ("intents", application)


@dataclass(frozen=True, slots=True)
class Context:
    """Ports and meeting places. `installation` is the id of this installation; `rollout_opened` starts the unit of a
    rollout that was just stored. `fleets` says which source has a fleet's name: applications are named by it, and two
    sources that meant the same targets would take them from each other for ever."""

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
    fleets: dict[str, str] = field(default_factory=dict)
