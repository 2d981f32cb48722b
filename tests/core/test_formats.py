"""Durations, as documents say them and as people do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.formats import duration_s, exact_duration, rough_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.5, "500ms"), (45, "45s"), (90, "1m30s"), (1800, "30m"), (5400, "1h30m"), (90_000, "25h")],
)
def test_durations_for_documents(seconds: float, text: str) -> None:
    assert exact_duration(seconds) == text


@given(st.integers(0, 10**9))
def test_what_is_written_is_read_as_the_same(millis: int) -> None:
    assert duration_s(exact_duration(millis / 1000)) == pytest.approx(millis / 1000)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (3600, "1 h"), (5400, "1 h 30 min"), (90_000, "25 h")],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert rough_duration(seconds) == text
