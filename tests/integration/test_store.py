"""The Store port, on every way to open a store: the same transactions, the same answers."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from reconciler.core.model import (
    Facts,
    InventoryPhase,
    Reason,
    RolloutState,
    Target,
    TargetState,
)
from reconciler.shell.ports import AuditRow, Commit, ConflictError, OutboxRow, QuarantineRow, SourceRow, Tx
from reconciler.shell.store import StoreError
from tests.integration.store_values import (
    APPLICATION,
    TARGETS,
    Opened,
    assignment,
    item,
    key,
    release,
    rollout,
    rows,
)

FIRST, SECOND, THIRD, FOURTH = TARGETS


# ---- transactions ------------------------------------------------------------------------------------------------


def test_what_is_committed_is_read(db: Opened) -> None:
    row = SourceRow("fleet", "sample", "a", "b", "c", '[{"code":"x"}]')
    db.write(lambda tx: tx.put_source(row))
    assert db.read(lambda tx: tx.source("fleet")) == row
    assert db.read(lambda tx: tx.source("other")) is None


def test_work_that_raises_leaves_nothing(db: Opened) -> None:
    def work(tx: Tx) -> None:
        tx.put_source(SourceRow("fleet"))
        assert tx.source("fleet") is not None  # a transaction sees its own writes
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        db.write(work)
    assert db.read(lambda tx: tx.source("fleet")) is None
    db.write(lambda tx: tx.put_source(SourceRow("fleet")))  # and the store goes on


def test_reading_cannot_write(db: Opened) -> None:
    with pytest.raises(StoreError, match=r"test: .*readonly"):
        db.read(lambda tx: tx.put_source(SourceRow("fleet")))
    assert db.read(lambda tx: tx.source("fleet")) is None
    db.write(lambda tx: tx.put_source(SourceRow("fleet")))
    assert db.read(lambda tx: tx.source("fleet")) == SourceRow("fleet")


def test_the_installation_has_an_id(db: Opened) -> None:
    assert db.read(lambda tx: tx.installation()) == "installation-1"
    assert db.store.epoch == 1


# ---- sources, releases, assignments, inventory -------------------------------------------------------------------


def test_a_revision_keeps_what_was_seen_first(db: Opened) -> None:
    commit = Commit("a" * 40, "Ada <ada@example.org>", "Größer 🚀", 12.5)
    db.write(lambda tx: tx.put_revision("fleet", commit, 20.0))
    db.write(lambda tx: tx.put_revision("fleet", dataclasses.replace(commit, subject="another"), 30.0))
    assert db.read(lambda tx: tx.revision("fleet", commit.sha)) == commit
    assert db.read(lambda tx: tx.revision("other", commit.sha)) is None


def test_a_release_comes_back_as_it_was(db: Opened) -> None:
    stored = release("1")
    odd = dataclasses.replace(stored, digest="odd", objects=({"huge": 2**80, "float": 1.0, "int": 1, "none": None},))
    for one in (stored, odd, stored):
        db.write(lambda tx, one=one: tx.put_release(one))  # type: ignore[misc]
    found = db.read(lambda tx: [tx.release(stored.digest), tx.release("odd"), tx.release("absent")])
    assert found == [stored, odd, None]
    assert found[1] is not None
    assert [type(value) for value in found[1].objects[0].values()] == [float, int, int, type(None)]


def test_a_release_that_was_rolled_back_is_not_remembered(db: Opened) -> None:
    stored = release("1")

    def work(tx: Tx) -> None:
        tx.put_release(stored)
        assert tx.release(stored.digest) == stored
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        db.write(work)
    assert db.read(lambda tx: tx.release(stored.digest)) is None


def test_assignments_by_each_filter(db: Opened) -> None:
    to = release()
    other = Target("sample/billing", FIRST.cluster)

    def work(tx: Tx) -> None:
        tx.put_release(to)
        for target in (*reversed(TARGETS), other):
            tx.put_assignment(assignment(target, to))
        tx.put_assignment(assignment(FIRST, to, source="second", baked="b", due="d", revision="r", heal_count=7))

    db.write(work)
    first = assignment(FIRST, to, source="second", baked="b", due="d", revision="r", heal_count=7)
    rest = [assignment(target, to) for target in TARGETS[1:]]
    billing = assignment(other, to)
    assert db.read(lambda tx: tx.assignments()) == [billing, first, *rest]
    assert db.read(lambda tx: tx.assignments(source="second")) == [first]
    assert db.read(lambda tx: tx.assignments(application=APPLICATION)) == [first, *rest]
    assert db.read(lambda tx: tx.assignments(cluster=FIRST.cluster)) == [billing, first]
    assert db.read(lambda tx: tx.assignments(source="fleet", cluster=FIRST.cluster)) == [billing]
    assert db.read(lambda tx: tx.assignment(FIRST)) == first
    db.write(lambda tx: tx.delete_assignment(FIRST))
    assert db.read(lambda tx: tx.assignment(FIRST)) is None


def test_a_target_is_not_assigned_a_release_that_is_not_here(db: Opened) -> None:
    with pytest.raises(StoreError, match="FOREIGN KEY"):
        db.write(lambda tx: tx.put_assignment(assignment(FIRST, release())))
    nothing = dataclasses.replace(assignment(FIRST, release()), digest="", due="later")
    db.write(lambda tx: tx.put_assignment(nothing))
    assert db.read(lambda tx: tx.assignment(FIRST)) == nothing


def test_inventory_of_target_and_cluster(db: Opened) -> None:
    other = Target("sample/billing", FIRST.cluster)
    items = [item(FIRST, InventoryPhase.INTENDED, "b"), item(FIRST, InventoryPhase.OWNED, "a", "uid-a")]
    foreign = item(other, InventoryPhase.DELETING, "c", "uid-c")
    db.write(lambda tx: tx.put_inventory([*items, foreign, item(SECOND, InventoryPhase.OWNED)]))
    assert db.read(lambda tx: tx.inventory(FIRST)) == [items[1], items[0]]
    assert db.read(lambda tx: tx.inventory_of_cluster(FIRST.cluster)) == [foreign, items[1], items[0]]
    changed = item(FIRST, InventoryPhase.DELETING, "a", "uid-a")
    db.write_all(
        lambda tx: tx.put_inventory([changed]), lambda tx: tx.delete_inventory(FIRST, [key("b"), key("absent")])
    )
    assert db.read(lambda tx: tx.inventory(FIRST)) == [changed]


# ---- rollouts ----------------------------------------------------------------------------------------------------


def test_a_rollout_is_compared_and_swapped(db: Opened) -> None:
    first = rollout()
    db.write(lambda tx: tx.insert_rollout(first, rows(first, release())))
    paused = dataclasses.replace(
        first, state=RolloutState.PAUSED, paused_from=RolloutState.ACTIVE, reason=Reason("Paused", "by hand")
    )
    stored = db.write(lambda tx: tx.update_rollout(paused))
    assert stored == dataclasses.replace(paused, version=1)
    assert db.read(lambda tx: tx.rollout("r1")) == stored
    with pytest.raises(ConflictError, match="version 0"):
        db.write(lambda tx: tx.update_rollout(paused))
    with pytest.raises(ConflictError, match="exists"):
        db.write(lambda tx: tx.insert_rollout(first, []))
    assert db.read(lambda tx: tx.rollout("r1")) == stored
    assert db.read(lambda tx: tx.rollout("r2")) is None


def test_a_rollouts_plan_never_changes(db: Opened) -> None:
    first = rollout()
    db.write(lambda tx: tx.insert_rollout(first, rows(first, release())))
    other = dataclasses.replace(first, plan=dataclasses.replace(first.plan, hash="plan-2"))
    with pytest.raises(ValueError, match="for good"):
        db.write(lambda tx: tx.update_rollout(other))


def test_rows_come_back_in_plan_order_and_only_those_of_the_plan(db: Opened) -> None:
    first = rollout("r1", (THIRD,), (SECOND, FOURTH, FIRST))
    planned = rows(first, release())
    db.write(lambda tx: tx.insert_rollout(first, list(reversed(planned))))
    assert db.read(lambda tx: tx.rollout_targets("r1")) == planned
    changed = dataclasses.replace(
        planned[2],
        state=TargetState.BAKING,
        reason=Reason("Healthy", "and baking"),
        changed=True,
        rolling=True,
        attempt=2,
        bake_s=1.5,
        bake_resets=1,
        progress_s=2.5,
        observed_at=3.5,
        observed_boot=4,
        job_ids=("a", "b"),
        restarts=5,
        superseding=True,
        started_wall=6.5,
        healthy_wall=7.5,
        baked_wall=8.5,
        from_digest="from",
        baked_digest="baked",
    )
    db.write(lambda tx: tx.put_rollout_targets("r1", [changed]))
    assert db.read(lambda tx: tx.rollout_targets("r1")) == [*planned[:2], changed, planned[3]]
    foreign = dataclasses.replace(planned[0], target=Target("sample/billing", "eu-1"))
    with pytest.raises(LookupError, match="billing"):
        db.write(lambda tx: tx.put_rollout_targets("r1", [changed, foreign]))
    second = rollout("r2", (THIRD,))
    with pytest.raises(ValueError, match="wave 1"):
        db.write(lambda tx: tx.insert_rollout(second, [*rows(second, release()), planned[3]]))
    assert db.read(lambda tx: tx.rollout("r2")) is None


def test_rollouts_by_each_filter_newest_first(db: Opened) -> None:
    ended = dataclasses.replace(rollout("r1"), state=RolloutState.SUCCEEDED, ended_wall=9.0)
    active = rollout("r2")
    halted = dataclasses.replace(
        rollout("r3", source="second"), state=RolloutState.HALTED, application="sample/billing"
    )
    db.write_all(
        lambda tx: tx.insert_rollout(ended, []),
        lambda tx: tx.insert_rollout(active, []),
        lambda tx: tx.insert_rollout(halted, []),
    )

    def ids(**filters: Any) -> list[str]:
        return [one.id for one in db.read(lambda tx: tx.rollouts(**filters))]

    assert ids() == ["r3", "r2", "r1"]
    assert ids(limit=2) == ["r3", "r2"]
    assert ids(active=True) == ["r3", "r2"]
    assert ids(active=False) == ["r1"]
    assert ids(source="fleet") == ["r2", "r1"]
    assert ids(source="fleet", active=True) == ["r2"]
    assert ids(application="sample/billing", active=True) == ["r3"]
    assert ids(application="sample/billing", source="fleet") == []
    assert db.read(lambda tx: tx.rollouts(active=False)) == [ended]


def test_the_commit_of_a_release_is_that_of_the_newest_rollout_that_brought_it(db: Opened) -> None:
    to = release()
    first, second = (dataclasses.replace(rollout(name, (FIRST,)), revision=f"sha-of-{name}") for name in ("r1", "r2"))
    db.write_all(
        lambda tx: tx.insert_rollout(first, rows(first, to)),
        lambda tx: tx.insert_rollout(second, rows(second, to)),
    )
    assert db.read(lambda tx: tx.revision_of(FIRST, to.digest)) == "sha-of-r2"
    assert db.read(lambda tx: tx.revision_of(FIRST, "another")) == ""
    assert db.read(lambda tx: tx.revision_of(SECOND, to.digest)) == ""


def test_a_target_is_in_active_rollouts_until_they_end(db: Opened) -> None:
    old, new = rollout("z-old", (FIRST, SECOND)), rollout("a-new", (FIRST,))
    to = release()

    def ids() -> dict[Target, list[str]]:
        found = db.read(lambda tx: tx.active_rows(FIRST.application))
        return {target: [identity for identity, _ in pairs] for target, pairs in found.items()}

    assert ids() == {}
    db.write_all(
        lambda tx: tx.insert_rollout(old, rows(old, to)),
        lambda tx: tx.insert_rollout(new, rows(new, to)),
    )
    assert ids() == {FIRST: ["z-old", "a-new"], SECOND: ["z-old"]}
    assert db.read(lambda tx: tx.active_rows(but="a-new")) == {
        FIRST: [("z-old", rows(old, to)[0])],
        SECOND: [("z-old", rows(old, to)[1])],
    }
    assert db.read(lambda tx: tx.active_rows("sample/another")) == {}
    halted = db.write(lambda tx: tx.update_rollout(dataclasses.replace(old, state=RolloutState.HALTED)))
    assert ids() == {FIRST: ["z-old", "a-new"], SECOND: ["z-old"]}
    ended = db.write(lambda tx: tx.update_rollout(dataclasses.replace(halted, state=RolloutState.ABORTED)))
    assert ids() == {FIRST: ["a-new"]}
    db.write(lambda tx: tx.put_rollout_targets("z-old", rows(old, to)))
    assert ids() == {FIRST: ["a-new"]}
    db.write(lambda tx: tx.update_rollout(dataclasses.replace(ended, state=RolloutState.ACTIVE)))
    assert ids() == {FIRST: ["z-old", "a-new"], SECOND: ["z-old"]}


# ---- facts, quarantine, ledgers, audit, outbox -------------------------------------------------------------------


def test_facts_of_a_cluster(db: Opened) -> None:
    facts = Facts("RUNNING", 12.25, (1.5, 2.0), "job", 3)
    db.write_all(
        lambda tx: tx.put_facts(FIRST, key("a"), Facts()),
        lambda tx: tx.put_facts(FIRST, key("a"), facts),
        lambda tx: tx.put_facts(FIRST, key("b"), Facts()),
        lambda tx: tx.put_facts(SECOND, key("a"), facts),
    )
    assert db.read(lambda tx: tx.facts(FIRST.cluster)) == {(FIRST, key("a")): facts, (FIRST, key("b")): Facts()}
    db.write(lambda tx: tx.delete_facts(FIRST))
    assert db.read(lambda tx: tx.facts(FIRST.cluster)) == {}
    assert db.read(lambda tx: tx.facts(SECOND.cluster)) == {(SECOND, key("a")): facts}


def test_quarantine(db: Opened) -> None:
    one = QuarantineRow(APPLICATION, "d1", Reason("Halted", "too many failures"), "r1", 5.0)
    two = dataclasses.replace(one, digest="d2")
    other = dataclasses.replace(one, application="sample/billing")
    db.write(lambda tx: tx.put_quarantine([one, two, other]))
    assert db.read(lambda tx: tx.quarantined()) == [other, one, two]
    assert db.read(lambda tx: tx.quarantined(APPLICATION)) == [one, two]
    assert db.write(lambda tx: tx.delete_quarantine(APPLICATION, "d1")) == 1
    assert db.write(lambda tx: tx.delete_quarantine(APPLICATION)) == 1
    assert db.read(lambda tx: tx.quarantined()) == [other]


def test_ledgers_count_what_was_spent_after_a_time(db: Opened) -> None:
    assert db.read(lambda tx: tx.spent("restarts", "cluster:a", 0.0)) == 0
    assert db.read(lambda tx: tx.ledger("restarts", "cluster:a", 0.0)) == (0, None)
    for wall, amount in ((10.0, 1), (20.0, 2), (30.0, 4)):
        db.write(lambda tx, wall=wall, amount=amount: tx.spend("restarts", "cluster:a", amount, wall))  # type: ignore[misc]
    db.write_all(
        lambda tx: tx.spend("restarts", "cluster:b", 8, 10.0),
        lambda tx: tx.spend("deletes", "cluster:a", 16, 10.0),
    )
    spent = db.read(lambda tx: [tx.spent("restarts", "cluster:a", since) for since in (9.0, 10.0, 20.0, 30.0)])
    ledgers = db.read(lambda tx: [tx.ledger("restarts", "cluster:a", since) for since in (9.0, 10.0, 20.0, 30.0)])
    oldest = [first for _, first in ledgers]
    assert spent == [total for total, _ in ledgers] == [7, 6, 4, 0]
    assert oldest == [10.0, 20.0, 30.0, None]


def test_the_audit_log_newest_first(db: Opened) -> None:
    lines = [
        AuditRow(1.0, "event", "Started", "one", "fleet", APPLICATION, "eu-1", "r1", data={"b": [1, None], "a": "ü"}),
        AuditRow(2.0, "alert", "Halted", "two", application=APPLICATION),
        AuditRow(3.0, "event", "Resumed", "three", rollout="r1", actor="ada"),
    ]
    for line in lines:
        db.write(lambda tx, line=line: tx.audit(line))  # type: ignore[misc]
    stored = [dataclasses.replace(line, id=number) for number, line in enumerate(lines, start=1)]
    assert db.read(lambda tx: tx.audit_log()) == stored[::-1]
    assert db.read(lambda tx: tx.audit_log(application=APPLICATION)) == [stored[1], stored[0]]
    assert db.read(lambda tx: tx.audit_log(rollout="r1", after_id=1)) == [stored[2]]
    assert db.read(lambda tx: tx.audit_log(limit=1)) == [stored[2]]


def test_the_outbox_holds_a_message_once(db: Opened) -> None:
    assert db.write(lambda tx: tx.put_outbox("z", "alert", {"text": "one", "n": 1.5}, 1.0))
    assert db.write(lambda tx: tx.put_outbox("a", "alert", {"text": "two"}, 2.0))
    assert not db.write(lambda tx: tx.put_outbox("z", "alert", {"text": "again"}, 3.0))
    z, a = OutboxRow("z", "alert", {"text": "one", "n": 1.5}, 1.0), OutboxRow("a", "alert", {"text": "two"}, 2.0)
    assert db.read(lambda tx: tx.outbox()) == [z, a]
    assert db.read(lambda tx: tx.outbox(sent=False, limit=1)) == [z]
    db.write_all(
        lambda tx: tx.mark_sent("z", 9.0), lambda tx: tx.mark_sent("z", 10.0), lambda tx: tx.mark_sent("absent", 9.0)
    )
    assert db.read(lambda tx: tx.outbox(sent=False)) == [a]
    assert db.read(lambda tx: tx.outbox(sent=True)) == [dataclasses.replace(z, sent_wall=9.0)]
