"""Structured logs: a stable event name and fields, as JSON or as key=value text.

    event(log, logging.INFO, "rollout.started", rollout="42", targets=8)
    {"time": "2026-01-02T03:04:05.678Z", "level": "info", "logger": "reconciler.shell.cycle",
     "event": "rollout.started", "rollout": "42", "targets": 8}

Programs match event names, so they never change; what varies is a field. Fields hold text of strangers (commit
messages, cluster statuses): control characters are removed, so that nobody forges a line or colours a terminal, and
everything is bounded. Values are handed over as they are and made text here, in one place.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, TextIO

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")

_TEXT_LENGTH_MAX = 2000
_FIELDS_MAX = 40
_ITEMS_MAX = 50
_DEPTH_MAX = 4
_EVENT = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_RESERVED = ("time", "level", "logger", "event", "exception")
#: C0, C1, delete, line and paragraph separators, bidirectional overrides, surrogates.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_PLAIN_VALUE = re.compile(r"[^\s\"=]+")


def clean_text(text: str, length_max: int = _TEXT_LENGTH_MAX) -> str:
    """`text` on one line, without control characters, cut to `length_max`."""
    # Cut first: what is looked at is bounded, too. Escapes of terminals lose their first character and become visible.
    cleaned = _CONTROL.sub(" ", text[: length_max + 1])
    return cleaned if len(text) <= length_max else cleaned[: length_max - 1] + "…"


def event(logger: logging.Logger, level: int, name: str, **fields: Any) -> None:
    """Log event `name` ("part.what") with `fields`. Inside an `except`, `exc_info=True` adds the traceback."""
    if not logger.isEnabledFor(level):
        return
    if not _EVENT.fullmatch(name):
        raise ValueError(f"not an event name: {name!r}")
    exc_info = fields.pop("exc_info", None)
    logger.log(level, name, exc_info=exc_info, extra={"reconciler_fields": fields}, stacklevel=2)


class StructuredFormatter(logging.Formatter):
    """Formats our events and other libraries' records alike; `as_json` or key=value."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        line = self._values(record)
        if self._as_json:
            return json.dumps(line, ensure_ascii=False, default=str)
        head = f"{line.pop('time')} {line.pop('level'):<7} {line.pop('event')}"
        return " ".join([head, *(f"{key}={_as_text(value)}" for key, value in line.items())])

    def _values(self, record: logging.LogRecord) -> dict[str, Any]:
        fields = getattr(record, "reconciler_fields", None)
        moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            # A library's message is text, not an event name: it is a field of an event of its own.
            "event": record.msg if fields is not None else "library.message",
            "logger": record.name,
        }
        if fields is None:
            fields = {"message": record.getMessage()}
        for key, value in list(fields.items())[:_FIELDS_MAX]:
            line[f"{key}_" if key in _RESERVED else clean_text(key, 80)] = _plain(value, 0)
        if record.exc_info:
            # The end of a traceback says most; it stays one line, as every record does.
            trace = self.formatException(record.exc_info)[-4 * _TEXT_LENGTH_MAX :]
            line["exception"] = clean_text(trace.replace("\n", " | "), 4 * _TEXT_LENGTH_MAX)
        return line


def _plain(value: Any, depth: int) -> Any:
    """`value` as bounded JSON values with clean text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    if isinstance(value, str):
        return clean_text(value)
    if depth < _DEPTH_MAX and isinstance(value, Mapping):
        return {clean_text(str(key), 200): _plain(item, depth + 1) for key, item in list(value.items())[:_ITEMS_MAX]}
    if depth < _DEPTH_MAX and isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value[:_ITEMS_MAX]]
    if isinstance(value, set | frozenset):
        return _plain(sorted(str(item) for item in value), depth)
    return clean_text(str(value))


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value if _PLAIN_VALUE.fullmatch(value) else json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False)


def configure(*, log_format: str, level: str, stream: TextIO | None = None) -> None:
    """Send every record of the process to `stream` (standard error by default). Libraries speak from warning on."""
    if log_format not in FORMATS or level not in LEVELS:
        raise ValueError(f"unknown log format or level: {log_format!r}, {level!r}")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(StructuredFormatter(as_json=log_format == "json"))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("reconciler").setLevel(level.upper())
    logging.captureWarnings(True)
