"""Logs: one line per event, fit for programs, whatever strangers wrote into the fields."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.shell.logs import StructuredFormatter, clean_text, configure, event
from reconciler.shell.notify import LogNotifier

LOG = logging.getLogger("reconciler.tests.logs")


@pytest.fixture
def root() -> Iterator[None]:
    """Whatever a test configures is taken back."""
    logger, ours = logging.getLogger(), logging.getLogger("reconciler")
    before = (list(logger.handlers), logger.level, ours.level)
    yield
    logger.handlers[:], level, our_level = before
    logger.setLevel(level)
    ours.setLevel(our_level)
    logging.captureWarnings(False)


def lines(log_format: str, level: str = "debug") -> io.StringIO:
    stream = io.StringIO()
    configure(log_format=log_format, level=level, stream=stream)
    return stream


def only(stream: io.StringIO) -> dict[str, Any]:
    [line] = stream.getvalue().splitlines()
    value: dict[str, Any] = json.loads(line)
    return value


@pytest.mark.usefixtures("root")
def test_an_event_as_json() -> None:
    stream = lines("json")
    event(LOG, logging.INFO, "rollout.started", rollout="42", targets=8, names=("a", "b"), ratio=float("nan"))
    line = only(stream)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info", "event": "rollout.started", "logger": LOG.name, "rollout": "42", "targets": 8,
        "names": ["a", "b"], "ratio": "nan",
    }  # fmt: skip


@pytest.mark.usefixtures("root")
def test_an_event_as_text() -> None:
    stream = lines("text")
    event(LOG, logging.WARNING, "git.fetch.failed", source="fleet", why='no "route"', n=None)
    _, _, rest = stream.getvalue().partition("Z ")
    assert rest == f'warning git.fetch.failed logger={LOG.name} source=fleet why="no \\"route\\"" n=null\n'


@pytest.mark.parametrize("log_format", ["json", "text"])
@pytest.mark.usefixtures("root")
def test_nobody_forges_a_line_or_colours_a_terminal(log_format: str) -> None:
    stream = lines(log_format)
    hostile = "x\n2026-01-01 error forged\x1b[31m\r\u2028\u202e\x00\x9b\ud800" + "y" * 100_000
    event(LOG, logging.INFO, "a.b", subject=hostile, deep={hostile: [[[[[[hostile]]]]]]}, many=[hostile] * 1000)
    LOG.warning("a library says %s", hostile)
    text = stream.getvalue()
    assert len(text.splitlines()) == 2
    assert all(character.isprintable() for character in text.replace("\n", ""))
    assert len(text) < 300_000
    text.encode()


@pytest.mark.usefixtures("root")
def test_reserved_names_of_fields_are_kept_apart() -> None:
    stream = lines("json")
    event(LOG, logging.INFO, "a.b", time="x", event="y")
    line = only(stream)
    assert (line["event"], line["event_"], line["time_"]) == ("a.b", "y", "x")


@pytest.mark.usefixtures("root")
def test_a_traceback_stays_on_its_line() -> None:
    stream = lines("json")
    try:
        raise ValueError("broken\nin two")
    except ValueError:
        event(LOG, logging.ERROR, "a.failed", exc_info=True)
    assert "ValueError: broken | in two" in only(stream)["exception"]


@pytest.mark.usefixtures("root")
def test_levels_hold_and_libraries_are_quiet() -> None:
    stream = lines("json", "warning")
    event(LOG, logging.INFO, "a.b")
    logging.getLogger("somelibrary").info("chatter")
    logging.getLogger("somelibrary").warning("trouble")
    assert only(stream)["message"] == "trouble"


@pytest.mark.parametrize("name", ["Rollout started", "started", "a.", "a.b c", ""])
@pytest.mark.usefixtures("root")
def test_event_names_are_names(name: str) -> None:
    lines("json")
    with pytest.raises(ValueError, match="not an event name"):
        event(LOG, logging.INFO, name)


def test_clean_text_says_that_it_was_cut() -> None:
    assert clean_text("abcdef", 4) == "abc…"
    assert clean_text("abcd", 4) == "abcd"


def test_the_formatter_takes_anything() -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "%s", (object(),), None)
    assert "library.message" in StructuredFormatter(as_json=True).format(record)


@pytest.mark.parametrize(
    ("level", "expected"),
    [("event", "info"), ("risk", "warning"), ("alert", "error"), ("fault", "critical"), ("?", "error")],
)
@pytest.mark.usefixtures("root")
def test_notifications_are_logged_at_their_level(level: str, expected: str) -> None:
    stream = lines("json")
    asyncio.run(LogNotifier().send("halted/42", "alert", {"level": level, "code": "HealthLost"}))
    line = only(stream)
    assert (line["level"], line["event"], line["key"]) == (expected, "notification.sent", "halted/42")
    assert line["body"]["code"] == "HealthLost"
