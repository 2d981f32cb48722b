"""Intents, and what their results tell the inventory, on every way to open a store."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from reconciler.core.model import (
    IntentResult,
    IntentState,
    InventoryPhase,
    Reason,
    Target,
    Verb,
)
from reconciler.shell.ports import Tx
from tests.integration.store_values import (
    TARGETS,
    Opened,
    intent,
    item,
    opened,
)

FIRST, SECOND, THIRD, FOURTH = TARGETS


# ---- intents -----------------------------------------------------------------------------------------------------


def test_intents_in_the_order_of_commitment(db: Opened) -> None:
    billing = Target("sample/billing", FIRST.cluster)
    db.write(lambda tx: tx.put_intents([intent("late", order=1), intent("early", order=0)]))
    db.write(lambda tx: tx.put_intents([intent("b", billing, owner="source:fleet"), intent("a", SECOND)]))
    db.write(lambda tx: tx.put_intents([dataclasses.replace(intent("early"), digest="another")]))  # left as it is
    db.write(lambda tx: tx.finish_intents([IntentResult("early", IntentState.FAILED, Reason("Refused", "no"))]))
    db.write(lambda tx: tx.finish_intents([IntentResult("a", IntentState.DONE, uid="u")]))
    failed = dataclasses.replace(intent("early"), state=IntentState.FAILED, reason=Reason("Refused", "no"))
    late = intent("late", order=1)
    other = intent("b", billing, owner="source:fleet")
    done = dataclasses.replace(intent("a", SECOND), state=IntentState.DONE)
    assert db.read(lambda tx: tx.intents()) == [failed, late, other, done]
    assert db.read(lambda tx: tx.intents(pending=True)) == [late, other]
    assert db.read(lambda tx: tx.intents(pending=False)) == [failed, done]
    assert db.read(lambda tx: tx.intents(cluster=FIRST.cluster, pending=True)) == [late, other]
    assert db.read(lambda tx: tx.intents(application=FIRST.application, cluster=FIRST.cluster)) == [failed, late]
    assert db.read(lambda tx: tx.intents(application=FIRST.application, cluster=FIRST.cluster, pending=True)) == [late]
    assert db.read(lambda tx: tx.intents(application=FIRST.application, cluster="another")) == []
    assert db.read(lambda tx: tx.intents(owner="rollout:r1")) == [failed, late, done]
    assert db.read(lambda tx: tx.intents(owner="rollout:r1", pending=True)) == [late]
    assert db.read(lambda tx: tx.unfinished_intents("rollout:r1")) == [failed, late]
    assert db.read(lambda tx: tx.intent("late")) == late
    assert db.read(lambda tx: tx.intent("absent")) is None
    assert db.read(lambda tx: tx.pending_counts(FIRST.application)) == {FIRST: 1}
    assert db.read(lambda tx: tx.pending_counts(billing.application)) == {billing: 1}
    assert db.read(lambda tx: tx.pending_counts("absent")) == {}


def test_abandoning_concerns_what_is_pending_of_one_target(db: Opened) -> None:
    why = Reason("Superseded", "a newer release")
    db.write(lambda tx: tx.put_intents([intent("1"), intent("2"), intent("3"), intent("4", SECOND)]))
    db.write(lambda tx: tx.finish_intents([IntentResult("1", IntentState.UNCHANGED, uid="u", generation=1)]))
    assert db.write(lambda tx: tx.abandon_intents(FIRST, why)) == 2
    assert db.write(lambda tx: tx.abandon_intents(FIRST, why)) == 0
    states = db.read(lambda tx: [(one.id, one.state.value, one.reason) for one in tx.intents()])
    assert states == [
        ("1", "unchanged", None),
        ("2", "abandoned", why),
        ("3", "abandoned", why),
        ("4", "pending", None),
    ]


def test_what_is_given_up_is_counted_once_it_is_committed(db: Opened) -> None:
    why = Reason("Superseded", "a newer release")
    db.write(lambda tx: tx.put_intents([intent("1"), intent("2", SECOND)]))
    store = db.store
    before = store.given_up(FIRST.cluster)

    def fails(tx: Tx) -> None:
        assert tx.abandon_intents(FIRST, why) == 1
        assert store.given_up(FIRST.cluster) == before, "nobody can read it yet"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        db.write(fails)
    assert store.given_up(FIRST.cluster) == before
    db.write(lambda tx: tx.abandon_intents(FIRST, why))
    after = store.given_up(FIRST.cluster)
    assert after != before
    db.write(lambda tx: tx.abandon_intents(FIRST, why))  # nothing is pending any more
    assert store.given_up(FIRST.cluster) == after


A, D = Verb.APPLY, Verb.DELETE
INTENDED, OWNED, DELETING = InventoryPhase.INTENDED, InventoryPhase.OWNED, InventoryPhase.DELETING

#: verb, abandoned before the result, phase recorded before, result -> phase and uid recorded after (None: no item)
RESULTS = [
    (A, False, INTENDED, IntentResult("i", IntentState.DONE, uid="new", generation=3), (OWNED, "new")),
    (A, False, INTENDED, IntentResult("i", IntentState.UNCHANGED, uid="new", generation=3), (OWNED, "new")),
    (A, False, None, IntentResult("i", IntentState.DONE, uid="new", generation=3), (OWNED, "new")),
    (A, False, INTENDED, IntentResult("i", IntentState.FAILED, uid="new"), (INTENDED, "old")),
    (A, False, DELETING, IntentResult("i", IntentState.DONE, uid="new", generation=3), (OWNED, "new")),
    (A, True, INTENDED, IntentResult("i", IntentState.DONE, uid="new", generation=3), (OWNED, "new")),
    (A, True, DELETING, IntentResult("i", IntentState.DONE, uid="new", generation=3), (DELETING, "new")),
    (A, True, INTENDED, IntentResult("i", IntentState.ABANDONED), (INTENDED, "old")),
    (D, False, DELETING, IntentResult("i", IntentState.DONE), (DELETING, "old")),
    (D, False, DELETING, IntentResult("i", IntentState.DONE, gone=True), None),
    (D, False, DELETING, IntentResult("i", IntentState.UNCHANGED, gone=True), None),
    (D, False, DELETING, IntentResult("i", IntentState.FAILED), (DELETING, "old")),
    (D, True, DELETING, IntentResult("i", IntentState.DONE, gone=True), None),
    (D, True, OWNED, IntentResult("i", IntentState.DONE, gone=True), None),
    (D, True, INTENDED, IntentResult("i", IntentState.DONE, gone=True), (INTENDED, "")),
]


@pytest.mark.parametrize(("verb", "abandoned", "before", "result", "after"), RESULTS)
def test_what_a_result_tells_the_inventory(
    tmp_path: Path,
    verb: Verb,
    abandoned: bool,
    before: InventoryPhase | None,
    result: IntentResult,
    after: tuple[InventoryPhase, str] | None,
) -> None:
    with opened("memory-inline", tmp_path) as db:
        db.write(lambda tx: tx.put_intents([intent("i", verb=verb)]))
        if before is not None:
            db.write(lambda tx: tx.put_inventory([item(FIRST, before, uid="old")]))
        if abandoned:
            db.write(lambda tx: tx.abandon_intents(FIRST, Reason("Superseded", "")))
        db.write(lambda tx: tx.finish_intents([result]))
        found = db.read(lambda tx: tx.inventory(FIRST))
        finished = db.read(lambda tx: tx.intent("i"))
    assert [(one.phase, one.uid) for one in found] == ([] if after is None else [after])
    assert finished is not None
    assert finished.state is (IntentState.ABANDONED if abandoned else result.state)
    if after is not None and after[1] == "new":
        assert found[0].generation == 3


def test_results_of_one_batch_take_effect_in_their_order(db: Opened) -> None:
    db.write(lambda tx: tx.put_intents([intent("1"), intent("2", verb=D, order=1), intent("3", order=2)]))
    db.write(
        lambda tx: tx.finish_intents(
            [
                IntentResult("1", IntentState.DONE, uid="one", generation=1),
                IntentResult("2", IntentState.DONE, gone=True),
                IntentResult("3", IntentState.DONE, uid="three", generation=1),
            ]
        )
    )
    assert [one.uid for one in db.read(lambda tx: tx.inventory(FIRST))] == ["three"]
    db.write(lambda tx: tx.finish_intents([IntentResult("3", IntentState.FAILED)]))  # the first result stays
    assert db.read(lambda tx: [one.state.value for one in tx.intents()]) == ["done", "done", "done"]


def test_results_that_make_no_sense_are_refused(db: Opened) -> None:
    db.write(lambda tx: tx.put_intents([intent("1")]))
    with pytest.raises(LookupError, match="absent"):
        db.write(lambda tx: tx.finish_intents([IntentResult("absent", IntentState.DONE)]))
    with pytest.raises(ValueError, match="pending"):
        db.write(lambda tx: tx.finish_intents([IntentResult("1", IntentState.PENDING)]))
