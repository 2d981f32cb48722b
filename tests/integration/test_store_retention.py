"""Retention takes what nothing reads any more, and nothing else."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator

import pytest

from reconciler.core.model import IntentResult, IntentState, Reason, Rollout, RolloutState
from reconciler.shell.ports import AuditRow, Commit, QuarantineRow, SourceRow
from reconciler.shell.store import SqlStore, open_store, retention
from tests.integration.store_values import APPLICATION, TARGETS, assignment, intent, release, rollout, rows

OLD, LIMIT, NEW = 10.0, 100.0, 200.0


@pytest.fixture(params=[2000, 3])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqlStore]:
    """Also with spans so short that every table takes many."""
    monkeypatch.setattr(retention, "SPAN", request.param)
    retention._walk.cache_clear()
    opened = open_store(":memory:", new_id=lambda: "i")
    yield opened
    opened.close_now()
    retention._walk.cache_clear()


def prune(store: SqlStore, keep: int = 1) -> dict[str, int]:
    return asyncio.run(store.prune_history(LIMIT, keep)).rows


def ended(identity: str, wall: float = OLD) -> Rollout:
    return dataclasses.replace(rollout(identity), state=RolloutState.SUCCEEDED, ended_wall=wall, revision=identity)


def add(store: SqlStore, one: Rollout, content: str, *, finished: bool = True) -> None:
    """A rollout with its release and one intent."""
    to = release(content)
    store.transact_now("add", lambda tx: tx.put_release(to))
    store.transact_now("add", lambda tx: tx.insert_rollout(one, rows(one, to)))
    store.transact_now("add", lambda tx: tx.put_intents([intent(one.id, owner=f"rollout:{one.id}", digest=to.digest)]))
    if finished:
        result = IntentResult(one.id, IntentState.DONE, uid="u")
        store.transact_now("add", lambda tx: tx.finish_intents([result]))


def test_ended_rollouts_go_with_rows_and_intents(store: SqlStore) -> None:
    for number in range(8):
        add(store, ended(f"old-{number}"), str(number))
    add(store, ended("with-pending-intent"), "pending", finished=False)
    add(store, ended("quarantined"), "bad")
    blame = QuarantineRow(APPLICATION, release("bad").digest, Reason("Halted", ""), "quarantined", OLD)
    store.transact_now("add", lambda tx: tx.put_quarantine([blame]))
    add(store, dataclasses.replace(rollout("halted"), state=RolloutState.HALTED), "halted")
    add(store, ended("recent", NEW), "recent")
    add(store, dataclasses.replace(ended("other"), source="second"), "other")

    pruned = prune(store, keep=2)

    # Two are kept of each source and application: "recent" and "halted" here. What is older stays for a reason.
    left = ["other", "recent", "halted", "quarantined", "with-pending-intent"]
    assert store.read_now("t", lambda tx: [one.id for one in tx.rollouts()]) == left
    assert store.read_now("t", lambda tx: sorted(one.id for one in tx.intents())) == sorted(left)
    assert (pruned["rollout"], pruned["intent"]) == (8, 8)
    assert store.read_now("t", lambda tx: tx.rollout_targets("old-3")) == []
    assert prune(store, keep=2)["rollout"] == 0


def test_a_source_keeps_its_last_intents_of_each_target(store: SqlStore) -> None:
    for number in range(10):
        target = TARGETS[number % 2]
        one = intent(f"{number}", target, owner="source:fleet")
        store.transact_now("add", lambda tx, one=one: tx.put_intents([one]))  # type: ignore[misc]
    done = [IntentResult(f"{number}", IntentState.DONE, uid="u") for number in range(1, 10)]
    store.transact_now("add", lambda tx: tx.finish_intents(done))
    assert prune(store, keep=2)["intent"] == 5
    assert store.read_now("t", lambda tx: [one.id for one in tx.intents()]) == ["0", "6", "7", "8", "9"]


def test_releases_go_at_the_second_run_and_only_if_nothing_points_to_them(store: SqlStore) -> None:
    names = ["assigned", "baked", "due", "to", "from", "last-baked", "pending", "free", "stored-again", "pointed-at"]
    made = {name: release(name) for name in names}
    for one in made.values():
        store.transact_now("add", lambda tx, one=one: tx.put_release(one))  # type: ignore[misc]
    digest = {name: one.digest for name, one in made.items()}
    first = assignment(TARGETS[0], made["assigned"], baked=digest["baked"], due=digest["due"])
    store.transact_now("add", lambda tx: tx.put_assignment(first))
    planned = [
        dataclasses.replace(row, from_digest=digest["from"], baked_digest=digest["last-baked"])
        for row in rows(rollout(), made["to"])
    ]
    store.transact_now("add", lambda tx: tx.insert_rollout(rollout(), planned))
    store.transact_now("add", lambda tx: tx.put_intents([intent("i", digest=digest["pending"])]))

    assert prune(store)["release"] == 0
    store.transact_now("again", lambda tx: tx.put_release(made["stored-again"]))
    store.transact_now("again", lambda tx: tx.put_assignment(assignment(TARGETS[1], made["pointed-at"])))
    assert prune(store)["release"] == 1

    there = store.read_now("t", lambda tx: [name for name in names if tx.release(digest[name]) == made[name]])
    assert there == [name for name in names if name != "free"]
    assert prune(store)["release"] == 1  # "stored-again" was marked once more, and nobody came
    assert store.read_now("t", lambda tx: tx.release(digest["stored-again"])) is None


def test_ledgers_messages_audit_and_revisions(store: SqlStore) -> None:
    for number in range(7):
        for wall in (OLD, NEW):
            line = AuditRow(wall, "event", "X", f"{number}")
            store.transact_now("add", lambda tx, line=line: tx.audit(line))  # type: ignore[misc]
            store.transact_now("add", lambda tx, wall=wall: tx.spend("restarts", "c", 1, wall))  # type: ignore[misc]
            commit = Commit(f"{number}-{wall}", "a", "s", 1.0)
            store.transact_now("add", lambda tx, c=commit, w=wall: tx.put_revision("fleet", c, w))  # type: ignore[misc]
        key = f"message-{number}"
        store.transact_now("add", lambda tx, key=key: tx.put_outbox(key, "k", {}, OLD))  # type: ignore[misc]
    store.transact_now("add", lambda tx: tx.mark_sent("message-3", OLD))
    store.transact_now("add", lambda tx: tx.mark_sent("message-4", NEW))
    named = SourceRow("fleet", last_attempted="0-10.0", last_applied="1-10.0", last_baked="2-10.0")
    store.transact_now("add", lambda tx: tx.put_source(named))
    store.transact_now("add", lambda tx: tx.insert_rollout(dataclasses.replace(rollout(), revision="3-10.0"), []))
    store.transact_now("add", lambda tx: tx.put_release(release()))
    assigned = assignment(TARGETS[0], release(), revision="4-10.0")
    store.transact_now("add", lambda tx: tx.put_assignment(assigned))

    assert prune(store, keep=4) == {
        "rollout": 0,
        "intent": 0,
        "ledger": 7,
        "outbox": 1,
        "audit": 5,  # two of the old lines are among the newest four
        "revision": 2,
        "release": 0,
    }
    assert store.read_now("t", lambda tx: tx.spent("restarts", "c", 0.0)) == 7
    assert store.read_now("t", lambda tx: len(tx.outbox())) == 6
    assert store.read_now("t", lambda tx: tx.revision("fleet", "4-10.0")) is not None
    assert store.read_now("t", lambda tx: tx.revision("fleet", "5-10.0")) is None
    assert [line.message for line in store.read_now("t", lambda tx: tx.audit_log(limit=4))] == ["6", "6", "5", "5"]


def test_keeping_nothing_is_refused(store: SqlStore) -> None:
    with pytest.raises(ValueError, match="keep is 0"):
        prune(store, keep=0)
