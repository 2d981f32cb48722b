"""Notifier of last resort: alerts go to the log, where whatever collects logs finds them.

Messages come from the outbox, at least once and with a key; other notifiers (chat, mail, webhooks) implement the same
port. The level of the log line follows the five levels of health management.

    await LogNotifier().send("halted/42", "alert", {"level": "alert", "code": "HealthLost", "message": "..."})
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from reconciler.shell.logs import event

_LOG = logging.getLogger(__name__)

_LEVELS = {
    "event": logging.INFO,
    "risk": logging.WARNING,
    "alert": logging.ERROR,
    "anomaly": logging.ERROR,
    "fault": logging.CRITICAL,
}


class LogNotifier:
    """ports.Notifier that writes one log line per message: event `notification`, with the message's own fields."""

    async def send(self, key: str, kind: str, body: Mapping[str, Any]) -> None:
        """Log it. A level that is not one of the five is taken for an alert: better loud than lost."""
        level = _LEVELS.get(str(body.get("level", "event" if kind != "alert" else "alert")), logging.ERROR)
        event(_LOG, level, "notification.sent", key=key, kind=kind, body=body)
