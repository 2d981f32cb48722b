"""What one changed application costs the store: statements and transactions, from the commit until it has baked.

Each is time of the thread that shares the interpreter with everything else, so that their number is kept, as a time
could not be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from reconciler.shell.store import SqlStore
from tests.sim.stories import Stage, tell

#: About a tenth above what was counted.
STATEMENTS_MAX = 300
WRITES_MAX = 20


class Counted:
    """Counts what the daemon asks of `store`; what the test itself asks is not."""

    def __init__(self, store: SqlStore) -> None:
        self.statements: Counter[str] = Counter()
        self.points: Counter[str] = Counter()
        self._store = store
        for name in ("transact_now", "read_now"):
            setattr(store, name, self._watched(getattr(store, name)))

    def _watched(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        def asked(point: str, work: Callable[..., Any]) -> Any:
            if point == "ask":
                return inner(point, work)
            self.points[point.partition(":")[0]] += 1
            self._store._raw.set_trace_callback(self._note)
            try:
                return inner(point, work)
            finally:
                self._store._raw.set_trace_callback(None)

        return asked

    def _note(self, statement: str) -> None:
        self.statements[" ".join(statement.split()[:2])] += 1


def test_what_one_change_costs() -> None:
    async def story(stage: Stage) -> None:
        await stage.settle()
        store = stage.world.store
        assert store is not None
        counted = Counted(store)
        stage.push("app0", "1.1", objects=2)
        await stage.settle()
        assert stage.tags("app0") == {"1.1"}
        assert counted.statements.total() <= STATEMENTS_MAX, counted.statements
        assert counted.points["decide"] + counted.points["source"] <= WRITES_MAX, counted.points
        # What Git no longer has is all that a source asks the store for in a transaction of its own.
        assert counted.points["targets"] == 0
        # A commit is written down as applied and as baked: not looked after at every step in between.
        assert counted.points["progress"] <= 2

    tell(story, clusters=1)
