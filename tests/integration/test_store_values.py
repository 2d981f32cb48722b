"""Every field of every stored value comes back, whatever it holds. Strategies follow the types, so that a field that is
added to a value and forgotten in the store fails here."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.model import (
    Assignment,
    Facts,
    FrozenPlan,
    Intent,
    InventoryItem,
    ObjectKey,
    Release,
    Rollout,
    RolloutTarget,
    Target,
    Wave,
)
from reconciler.shell.ports import Commit, QuarantineRow, SourceRow
from reconciler.shell.store import open_store
from reconciler.shell.store.tx import SqlTx
from tests.integration.store_values import rollout

PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=12),
    bool: st.booleans(),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    type(None): st.none(),
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of type `hint`, every field of a dataclass or named tuple given."""
    if hint in PLAIN:
        return PLAIN[hint]
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return st.one_of(*(values(part) for part in typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        part, _ = typing.get_args(hint)
        return st.lists(values(part), max_size=3).map(tuple)
    if issubclass(hint, enum.Enum):
        return st.sampled_from(list(hint))
    return st.builds(hint, **{name: values(kind) for name, kind in typing.get_type_hints(hint).items()})


def in_store(work: Callable[[SqlTx], Any]) -> Any:
    """`work` in a transaction of a new store, which costs two milliseconds."""
    store = open_store(":memory:", new_id=lambda: "i")
    try:
        return store.transact_now("test", work)
    finally:
        store.close_now()


@settings(deadline=None, max_examples=60, derandomize=True)
@given(values(Rollout), values(RolloutTarget))
def test_rollouts_and_their_rows(stored: Rollout, row: RolloutTarget) -> None:
    row = dataclasses.replace(row, wave=0)
    wave = Wave("first", (row.target,), 0.0, 1, 0, 0)
    stored = dataclasses.replace(stored, plan=dataclasses.replace(stored.plan, waves=(wave, *stored.plan.waves)))
    waiting = RolloutTarget(row.target, 0, row.to_digest, row.from_digest, row.baked_digest)
    # A target that a later wave names again would be at home in that one.
    later = any(row.target in other.targets for other in stored.plan.waves[1:])

    def work(tx: SqlTx) -> None:
        tx.insert_rollout(stored, [] if later else [waiting])
        assert tx.rollout(stored.id) == stored
        if not later:
            tx.put_rollout_targets(stored.id, [row])
            assert tx.rollout_targets(stored.id) == [row]

    in_store(work)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(values(FrozenPlan), values(Rollout))
def test_updates_of_a_rollout(plan: FrozenPlan, new: Rollout) -> None:
    old = dataclasses.replace(rollout(), plan=plan)
    fixed = {name: getattr(old, name) for name in ("id", "source", "application", "kind", "revision", "plan")}
    new = dataclasses.replace(new, **fixed, created_wall=old.created_wall, version=0)

    def work(tx: SqlTx) -> None:
        tx.insert_rollout(old, [])
        stored = tx.update_rollout(new)
        assert stored == dataclasses.replace(new, version=1)
        assert tx.rollout(old.id) == stored

    in_store(work)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(values(Assignment), values(Intent), values(InventoryItem), values(SourceRow), values(QuarantineRow))
def test_other_rows(
    assignment: Assignment, intent: Intent, item: InventoryItem, source: SourceRow, quarantine: QuarantineRow
) -> None:
    def work(tx: SqlTx) -> None:
        if assignment.digest:
            tx.put_release(Release(assignment.digest, "sample/orders", ()))
        tx.put_assignment(assignment)
        tx.put_intents([intent])
        tx.put_inventory([item])
        tx.put_source(source)
        tx.put_quarantine([quarantine])
        assert tx.assignments() == [assignment]
        assert tx.intents() == [intent]
        assert tx.inventory(item.target) == [item]
        assert tx.source(source.name) == source
        assert tx.quarantined() == [quarantine]

    in_store(work)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(values(Target), values(ObjectKey), values(Facts), values(Commit))
def test_facts_and_commits(target: Target, key: ObjectKey, facts: Facts, commit: Commit) -> None:
    def work(tx: SqlTx) -> None:
        tx.put_facts(target, key, facts)
        tx.put_revision("fleet", commit, 1.0)
        assert tx.facts(target.cluster) == {(target, key): facts}
        assert tx.revision("fleet", commit.sha) == commit

    in_store(work)
