"""A decision becomes rows, in a real store in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import pytest

from reconciler.core.actions import Abandon, Action, Alert, Apply, Baked, Decision, Due, Prune, Quarantine, Step
from reconciler.core.admit import WINDOW_S, Spend
from reconciler.core.model import (
    Facts,
    Intent,
    IntentResult,
    IntentState,
    InventoryPhase,
    Reason,
    Release,
    Target,
    TargetState,
    Verb,
    release_of,
)
from reconciler.shell.ports import Tx
from reconciler.shell.record import ledgers_for, record_decision
from reconciler.shell.store.opening import open_store
from tests.core.decisions import APPLICATION, CONFIG, JOB, plan_of, rollout_of, rows_of, target_of, time_at, wave

T = TypeVar("T")
TARGET = target_of("c0")
OWNER = "rollout:r1"
WHY = Reason("Because", "because")


def release(tag: str, *, config: bool = True) -> Release:
    job = {
        "apiVersion": "flink.apache.org/v1beta1",
        "kind": JOB.kind,
        "metadata": {"name": JOB.name, "namespace": JOB.namespace},
        "spec": {"image": tag},
    }
    settings = {
        "apiVersion": "v1",
        "kind": CONFIG.kind,
        "metadata": {"name": CONFIG.name, "namespace": CONFIG.namespace},
        "data": {"tag": tag},
    }
    return release_of(APPLICATION, (settings, job) if config else (job,))


FIRST, SECOND = release("1"), release("2", config=False)


class Book:
    """A store with one rollout of one target, and a unit that records decisions in it."""

    def __init__(self) -> None:
        self.store = open_store(":memory:", new_id=lambda: "installation-1")
        plan = plan_of([wave("all", ["c0"])])
        self.rollout = rollout_of(plan)
        self.rows = rows_of(plan, to_digest=FIRST.digest, from_digest=None, baked_digest=None)
        for each in (FIRST, SECOND):
            self.do(partial(_put_release, release=each))
        self.do(lambda tx: tx.insert_rollout(self.rollout, self.rows))
        self.at = 100.0

    def do(self, work: Callable[[Tx], T]) -> T:
        return self.store.transact_now("test", work)

    def record(self, *actions: Action, owner: str = OWNER, spends: tuple[Spend, ...] = ()) -> set[str]:
        decision = Decision(self.rollout, (Step(TARGET, None, actions),))
        return self.do(lambda tx: record_decision(tx, owner, "fleet", decision, {}, list(spends), time_at(self.at)))

    def finish(self, uid: str = "u") -> None:
        """The lane did all that was pending."""

        def work(tx: Tx) -> None:
            pending = tx.intents(application=TARGET.application, cluster=TARGET.cluster, pending=True)
            tx.finish_intents(
                [
                    IntentResult(each.id, IntentState.DONE, None, f"{uid}-{each.key.kind}", 1)
                    if each.verb is Verb.APPLY
                    else IntentResult(each.id, IntentState.DONE, gone=True)
                    for each in pending
                ]
            )

        self.do(work)

    def pending(self) -> list[str]:
        return [f"{each.purpose} {each.verb} {each.key.kind} {each.digest}" for each in self.do(_pending)]

    def phases(self) -> dict[str, InventoryPhase]:
        return {item.key.kind: item.phase for item in self.do(lambda tx: tx.inventory(TARGET))}


def _pending(tx: Tx) -> list[Intent]:
    return tx.intents(application=TARGET.application, cluster=TARGET.cluster, pending=True)


def _put_release(tx: Tx, release: Release) -> None:
    tx.put_release(release)


def start(to: Release = FIRST, purpose: str = "start", attempt: int = 1, streak: int = 0) -> Apply:
    return Apply(TARGET, to.digest, purpose, attempt, "abc", streak)


def test_before_anything_is_written_it_is_assigned_intended_and_committed_to() -> None:
    book = Book()
    assert book.record(start()) == {"c0"}
    assert book.pending() == [f"start apply {kind} {FIRST.digest}" for kind in ("ConfigMap", "FlinkDeployment")]
    assert set(book.phases().values()) == {InventoryPhase.INTENDED}
    assigned = book.do(lambda tx: tx.assignment(TARGET))
    assert assigned is not None
    assert (assigned.digest, assigned.revision, assigned.baked) == (FIRST.digest, "abc", None)


def test_recording_a_decision_twice_stores_it_once() -> None:
    book = Book()
    book.record(start())
    before = book.do(
        lambda tx: [intent.id for intent in tx.intents(application=TARGET.application, cluster=TARGET.cluster)]
    )
    book.finish()
    book.record(start())
    assert (
        book.do(lambda tx: [intent.id for intent in tx.intents(application=TARGET.application, cluster=TARGET.cluster)])
        == before
    )
    assert book.pending() == []


def test_a_newer_write_gives_up_the_older_ones() -> None:
    book = Book()
    book.record(start())
    book.record(start(SECOND, attempt=2))
    assert book.pending() == [f"start apply FlinkDeployment {SECOND.digest}"]
    states = book.do(
        lambda tx: [str(intent.state) for intent in tx.intents(application=TARGET.application, cluster=TARGET.cluster)]
    )
    assert sorted(states) == ["abandoned", "abandoned", "pending"]


def test_a_late_result_of_a_write_that_was_given_up_is_a_fact_all_the_same() -> None:
    book = Book()
    book.record(start())
    first = book.do(lambda tx: tx.intents(application=TARGET.application, cluster=TARGET.cluster, pending=True))[0]
    book.record(Abandon(TARGET, WHY))
    book.do(lambda tx: tx.finish_intents([IntentResult(first.id, IntentState.DONE, None, "u1", 1)]))
    assert book.phases()[first.key.kind] is InventoryPhase.OWNED
    assert book.do(lambda tx: tx.intent(first.id).state) is IntentState.ABANDONED  # type: ignore[union-attr]  # it is there


def test_giving_up_a_deletion_keeps_the_object() -> None:
    book = Book()
    book.record(start())
    book.finish()
    items = tuple(book.do(lambda tx: tx.inventory(TARGET)))
    book.record(Prune(TARGET, SECOND.digest, items[:1], 1, 1), owner="source:fleet")
    assert InventoryPhase.DELETING in book.phases().values()
    book.record(Abandon(TARGET, WHY))
    assert set(book.phases().values()) == {InventoryPhase.OWNED}
    assert book.pending() == []


def test_a_deletion_that_is_confirmed_leaves_the_inventory() -> None:
    book = Book()
    book.record(start())
    book.finish()
    items = tuple(item for item in book.do(lambda tx: tx.inventory(TARGET)) if item.key == CONFIG)
    book.record(Prune(TARGET, SECOND.digest, items, 1, 1), owner="source:fleet")
    assert book.pending() == [f"prune delete ConfigMap {SECOND.digest}"]
    book.finish()
    assert list(book.phases()) == ["FlinkDeployment"]


def test_a_heal_assigns_nothing_and_is_counted() -> None:
    book = Book()
    book.record(start())
    book.record(Baked(TARGET, FIRST.digest))
    book.finish()
    before = book.do(lambda tx: tx.assignment(TARGET))
    assert before is not None
    book.record(start(purpose="heal", streak=3), owner="source:fleet")
    after = book.do(lambda tx: tx.assignment(TARGET))
    assert after == replace(before, heal_count=1, heal_streak=3, heal_at_s=100.0, heal_boot=1)
    assert [row.code for row in book.do(lambda tx: tx.audit_log())] == ["Healing"]


def test_health_facts_of_another_release_are_forgotten_and_of_the_same_one_kept() -> None:
    book = Book()
    book.record(start())
    book.finish()
    book.do(lambda tx: tx.put_facts(TARGET, JOB, Facts("running", 5.0)))
    book.record(start(purpose="heal"))
    assert book.do(lambda tx: tx.facts("c0")) != {}
    book.record(start(SECOND, attempt=2))
    assert book.do(lambda tx: tx.facts("c0")) == {}


def test_what_baked_and_what_is_due() -> None:
    book = Book()
    book.record(start(), Due(TARGET, SECOND.digest))
    assigned = book.do(lambda tx: tx.assignment(TARGET))
    assert assigned is not None
    assert (assigned.baked, assigned.due) == (None, SECOND.digest)
    book.record(start(SECOND, attempt=2))
    book.record(Baked(TARGET, SECOND.digest))
    assigned = book.do(lambda tx: tx.assignment(TARGET))
    assert assigned is not None
    assert (assigned.baked, assigned.due) == (SECOND.digest, None)


def test_what_was_gone_back_from_is_no_place_to_go_back_to() -> None:
    book = Book()
    book.record(start())
    book.record(Baked(TARGET, FIRST.digest))
    book.record(start(SECOND, attempt=2))
    book.record(Baked(TARGET, SECOND.digest))  # it baked here, and then failed elsewhere
    book.record(start(FIRST, purpose="rollback", attempt=3))
    assigned = book.do(lambda tx: tx.assignment(TARGET))
    assert assigned is not None
    assert (assigned.digest, assigned.baked) == (FIRST.digest, FIRST.digest)


def test_an_alert_is_queued_and_noted_once() -> None:
    book = Book()
    alert = Alert("r1/stopped", "alert", WHY, APPLICATION, (TARGET,))
    book.record(alert)
    book.record(alert)
    (message,) = book.do(lambda tx: tx.outbox())
    assert (message.key, message.body["targets"], message.body["code"]) == ("r1/stopped", [str(TARGET)], "Because")
    assert [row.level for row in book.do(lambda tx: tx.audit_log())] == ["alert"]


def test_quarantine_is_by_digest() -> None:
    book = Book()
    book.record(Quarantine(APPLICATION, (FIRST.digest, SECOND.digest), WHY, "r1"))
    book.record(Quarantine(APPLICATION, (FIRST.digest,), WHY, "r2"))
    assert {row.digest for row in book.do(lambda tx: tx.quarantined(APPLICATION))} == {FIRST.digest, SECOND.digest}


@pytest.mark.parametrize(
    ("state", "level"),
    [
        (TargetState.SUCCEEDED, "event"),
        (TargetState.FAILED, "alert"),
        (TargetState.UNREACHABLE, "risk"),
        (TargetState.PROGRESSING, None),
    ],
)
def test_a_state_that_people_should_know_of_is_noted_once(state: TargetState, level: str | None) -> None:
    book = Book()
    after = replace(book.rows[0], state=state)

    def record(before: dict[Target, object]) -> None:
        decision = Decision(book.rollout, (Step(TARGET, after),))
        book.do(lambda tx: record_decision(tx, OWNER, "fleet", decision, before, [], time_at(1.0)))  # type: ignore[arg-type]  # rows by target

    record({TARGET: book.rows[0]})
    record({TARGET: after})
    assert [row.level for row in book.do(lambda tx: tx.audit_log())] == ([level] if level is not None else [])
    assert book.do(lambda tx: tx.rollout_targets("r1")[0].state) is state


def test_ledgers_count_the_last_hour_and_deletes_the_whole_commit() -> None:
    book = Book()
    pairs = [("restarts", "cluster:c0"), ("deletes", "commit:fleet/abc")]
    book.record(spends=tuple(Spend(kind, scope, 2) for kind, scope in pairs))
    soon = book.do(lambda tx: ledgers_for(tx, pairs, time_at(book.at + 60)))
    assert soon.spent == {pairs[0]: 2, pairs[1]: 2}
    assert soon.frees_at[pairs[0]] == time_at(book.at).wall
    later = book.do(lambda tx: ledgers_for(tx, pairs, time_at(book.at + WINDOW_S + 1)))
    assert later.spent == {pairs[0]: 0, pairs[1]: 2}
