"""How far a commit is: what is looked at in the store, and when there is nothing to look for."""

from __future__ import annotations

import pytest

from reconciler.shell.progress import Progress

ORDERS, PAYMENTS = "shop/orders", "shop/payments"


@pytest.mark.parametrize(
    ("decided", "moved"),
    [
        ({}, False),
        ({ORDERS: (True, True, False)}, False),  # the other one was not decided yet
        ({ORDERS: (True, True, False), PAYMENTS: (False, False, False)}, False),
        ({ORDERS: (True, True, False), PAYMENTS: (True, False, False)}, True),
        ({ORDERS: (True, True, False), PAYMENTS: (True, False, True)}, False),  # assigned everywhere, and still moving
        ({ORDERS: (True, True, False), PAYMENTS: (True, True, False)}, True),
    ],
)
def test_there_is_something_to_write_once_nothing_is_on_its_way(
    decided: dict[str, tuple[bool, bool, bool]], moved: bool
) -> None:
    progress = Progress()
    progress.wrote("0", "0")
    progress.behind({ORDERS, PAYMENTS})
    for application, (applied, baked, moving) in decided.items():
        progress.decided(application, applied=applied, baked=baked, moving=moving)
    assert progress.may_have_moved("1") is moved


def test_what_is_written_is_not_written_again() -> None:
    progress = Progress()
    progress.decided(ORDERS, applied=True, baked=False, moving=True)
    assert not progress.may_have_moved("1")
    progress.decided(ORDERS, applied=True, baked=False, moving=False)
    assert progress.may_have_moved("1")
    assert progress.of("1", "0") == ("1", "0")
    progress.wrote("1", "0")
    assert not progress.may_have_moved("1")
    progress.decided(ORDERS, applied=True, baked=True, moving=False)
    assert progress.of("1", "0") == ("1", "1")
    assert progress.may_have_moved("1")
