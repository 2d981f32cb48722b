"""How far a series is done: the same as the plain definition, in however many steps it ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconciler.shell.in_order import InOrder, Step


def test_what_ends_early_waits_for_what_began_before() -> None:
    steps = InOrder()
    first, second, third = (steps.begin(version, at_s) for version, at_s in (("7", 1.0), ("8", 2.0), ("9", 3.0)))
    assert steps.end(second) is None
    assert steps.end(first) is second
    assert steps.end(third) is third
    assert len(steps) == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 50)), max_size=60))
def test_it_is_done_up_to_the_first_that_has_not_ended(course: list[tuple[bool, int]]) -> None:
    """Against a slow model: every step ever begun, and the first of them that has not ended."""
    steps, all_steps = InOrder(), list[Step]()
    reached = -1
    for begins, choice in course:
        if begins or all(step.ended for step in all_steps):
            all_steps.append(steps.begin(str(len(all_steps)), float(len(all_steps))))
            continue
        under_way = [step for step in all_steps if not step.ended]
        settled = steps.end(under_way[choice % len(under_way)])
        done = next((place for place, step in enumerate(all_steps) if not step.ended), len(all_steps)) - 1
        assert (settled is not None) == (done > reached)
        assert settled is None or settled is all_steps[done]
        reached = done
        assert len(steps) <= 2 * sum(not step.ended for step in all_steps)
