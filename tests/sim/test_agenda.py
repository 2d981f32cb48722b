"""The work queue of the simulated controllers."""

from __future__ import annotations

import pytest

from reconciler.sim import agenda as sim_agenda
from reconciler.sim.agenda import Agenda
from reconciler.sim.loop import Livelock, SteppedClock


def _agenda() -> tuple[SteppedClock, Agenda[str], list[tuple[float, str]]]:
    clock = SteppedClock()
    seen: list[tuple[float, str]] = []
    agenda: Agenda[str] = Agenda(clock, lambda key: seen.append((clock.now().monotonic, key)))
    return clock, agenda, seen


def test_keys_are_handled_when_due_in_key_order_and_once() -> None:
    clock, agenda, seen = _agenda()
    for key, due_s in [("b", 5.0), ("a", 5.0), ("c", 2.0)]:
        agenda.add(key, due_s)
    clock.advance_to(10)
    assert seen == [(2.0, "c"), (5.0, "a"), (5.0, "b")]
    assert agenda.next_due() is None


def test_the_earliest_due_time_counts() -> None:
    clock, agenda, seen = _agenda()
    agenda.add("a", 9.0)
    agenda.add("a", 3.0)
    agenda.add("a", 6.0)
    assert agenda.next_due() == 3.0
    clock.advance_to(20)
    assert seen == [(3.0, "a")]


def test_a_removed_key_is_not_handled_and_may_come_back_later() -> None:
    clock, agenda, seen = _agenda()
    agenda.add("a", 3.0)
    agenda.remove("a")
    agenda.add("a", 7.0)
    clock.advance_to(20)
    assert seen == [(7.0, "a")]


def test_idle_means_nothing_is_due_now() -> None:
    clock, agenda, _ = _agenda()
    agenda.add("a", 3.0)
    assert agenda.idle()
    clock.advance_to(2.9999999)
    assert not agenda.idle()
    agenda.run_due()
    assert agenda.idle()


def test_what_a_handler_makes_due_at_once_is_handled_in_the_same_step() -> None:
    clock = SteppedClock()
    seen: list[str] = []

    def handle(key: str) -> None:
        seen.append(key)
        if len(key) < 3:
            agenda.add(key + "x", clock.now().monotonic)

    agenda: Agenda[str] = Agenda(clock, handle)
    agenda.add("a", 1.0)
    clock.advance_to(1)
    assert seen == ["a", "ax", "axx"]


def test_a_handler_that_never_comes_to_rest_is_a_livelock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim_agenda, "HANDLED_AT_ONE_INSTANT_MAX", 100)
    clock = SteppedClock()
    agenda: Agenda[str] = Agenda(clock, lambda key: agenda.add(key, clock.now().monotonic))
    agenda.add("a", 1.0)
    with pytest.raises(Livelock, match="the last of them a"):
        clock.advance_to(1)


def test_a_copy_is_taken_over() -> None:
    _, agenda, _ = _agenda()
    agenda.add("a", 3.0)
    agenda.add("b", 1.0)
    saved = agenda.snapshot()
    clock, other, seen = _agenda()
    other.add("z", 1.0)
    other.restore(saved)
    clock.advance_to(5)
    assert seen == [(1.0, "b"), (3.0, "a")]
    agenda.stop()
    assert agenda.next_due() is None
