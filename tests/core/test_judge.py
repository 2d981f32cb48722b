"""One look at one live object, and a target's objects together."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from reconciler.core.judge import Answer, Seen, is_disabled, judge, judge_target, means_the_same
from reconciler.core.model import (
    Facts,
    Health,
    InventoryItem,
    InventoryPhase,
    Manifest,
    ObjectKey,
    ObjectVerdict,
    Reason,
    Sync,
    Target,
)
from tests.core.field_owners import applied, flink_deployment

TARGET = Target("fleet/orders", "eu-1")
SEEN = Seen(5.0, 5.0)


def _live() -> Manifest:
    live = applied(flink_deployment())
    live["status"] = {
        "lifecycleState": "STABLE",
        "jobManagerDeploymentStatus": "READY",
        "jobStatus": {"state": "RUNNING", "jobId": "9b1c"},
        "observedGeneration": 1,
        "reconciliationStatus": {"state": "DEPLOYED"},
    }
    return live


def _item(**changes: Any) -> InventoryItem:
    key = ObjectKey.of(flink_deployment())
    item = InventoryItem(TARGET, key, "flink.apache.org/v1beta1", InventoryPhase.OWNED, "0d1f", 1)
    return replace(item, **changes)


def _look(
    live: Manifest | None, item: InventoryItem | None = None, answer: Answer | None = None
) -> tuple[ObjectVerdict, Facts]:
    return judge(flink_deployment(), live, item or _item(), Facts(), 100.0, answer=answer)


def test_in_sync_and_healthy() -> None:
    verdict, facts = _look(_live())
    assert (verdict.sync, verdict.health, verdict.reason.code) == (Sync.IN_SYNC, Health.HEALTHY, "Running")
    assert (verdict.uid, verdict.generation, verdict.resource_version) == ("0d1f", 1, "7")
    assert (verdict.job_id, facts.job_id, verdict.message) == ("9b1c", "9b1c", "")


def test_missing() -> None:
    verdict, _ = _look(None)
    assert (verdict.sync, verdict.health) == (Sync.MISSING, Health.MISSING)


def test_being_deleted_is_neither_in_sync_nor_drift() -> None:
    live = _live()
    live["metadata"]["deletionTimestamp"] = "2026-03-01T10:00:00Z"
    verdict, _ = _look(live)
    assert (verdict.sync, verdict.health, verdict.reason.code) == (Sync.UNKNOWN, Health.PROGRESSING, "Deleting")


def test_a_read_older_than_our_write_is_unknown() -> None:
    before = Facts("running@1", 1.0)
    verdict, facts = judge(flink_deployment(), _live(), _item(generation=2), before, 100.0)
    assert (verdict.sync, verdict.health, verdict.reason.code) == (Sync.UNKNOWN, Health.UNKNOWN, "StaleRead")
    assert facts == before


def test_a_recreated_object_is_not_the_one_we_applied() -> None:
    old = Facts("running@1", 1.0, (2.0,), "old", 7)
    verdict, facts = judge(flink_deployment(), _live(), _item(uid="other", generation=9), old, 100.0)
    assert (verdict.health, verdict.reason.code) == (Health.PROGRESSING, "Recreated")
    assert (facts.restarts, facts.job_id) == (0, "9b1c")


#: The same configuration, written differently.
_NESTED = {"taskmanager": {"numberOfTaskSlots": "2"}, "execution": {"checkpointing": {"interval": "60s"}}}


@pytest.mark.parametrize(("answer", "sync"), [(None, Sync.ASK), (True, Sync.IN_SYNC), (False, Sync.DIFFERS)])
def test_the_servers_answer_settles_a_doubt(answer: bool | None, sync: Sync) -> None:
    live = _live()
    live["spec"]["flinkConfiguration"] = _NESTED
    assert _look(live, answer=answer)[0].sync is sync


@pytest.mark.parametrize(("answer", "sync"), [(None, Sync.DIFFERS), (True, Sync.IN_SYNC), (False, Sync.DIFFERS)])
def test_a_webhook_that_rewrites_a_value_is_no_drift(answer: bool | None, sync: Sync) -> None:
    live = _live()
    live["spec"]["image"] = "mirror/orders:1"
    verdict = _look(live, answer=answer)[0]
    assert verdict.sync is sync
    assert ("spec.image" in verdict.message) == (sync is Sync.DIFFERS)


REFUSED = Reason("DryRunRefused", "admission webhook pods.example.com does not support dry run")


def test_a_refused_dry_run_leaves_the_judgement_to_the_client() -> None:
    live = _live()
    live["spec"]["flinkConfiguration"] = _NESTED
    assert _look(live)[0].sync is Sync.ASK
    verdict = _look(live, answer=REFUSED)[0]
    assert (verdict.sync, verdict.health) == (Sync.IN_SYNC, Health.HEALTHY)
    assert "client" in verdict.message
    assert "does not support dry run" in verdict.message


@pytest.mark.parametrize(
    ("path", "value", "sync"),
    [
        (("jobManager", "resource", "cpu"), 1.0, Sync.IN_SYNC),
        (("jobManager", "resource", "cpu"), 2, Sync.DIFFERS),
        (("taskManager", "resource", "memory"), "2048000000000000000m", Sync.DIFFERS),
        (("job", "args"), ["--x"], Sync.DIFFERS),
        (("job", "added"), "by a webhook", Sync.IN_SYNC),
        (("flinkConfiguration",), {"taskmanager": {"numberOfTaskSlots": 3}}, Sync.DIFFERS),
        (
            ("flinkConfiguration",),
            {"taskmanager": {"numberOfTaskSlots": "2"}, "execution": {"checkpointing": {"interval": "60s"}}},
            Sync.IN_SYNC,
        ),
    ],
)
def test_the_client_compares_what_is_declared_by_value(path: tuple[str, ...], value: Any, sync: Sync) -> None:
    live = _live()
    for entry in live["metadata"]["managedFields"]:
        entry["manager"] = "somebody-else"  # nothing is recorded as ours: only the server can tell
    holder = live["spec"]
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = value
    assert _look(live)[0].sync is Sync.ASK
    verdict = _look(live, answer=REFUSED)[0]
    assert verdict.sync is sync
    assert "the client's comparison" in verdict.message
    # What differs is named, so that its repairs are counted.
    where = ".".join(("spec", *path))
    assert all(name.startswith(where) for name in verdict.drifted)
    assert bool(verdict.drifted) == bool(verdict.drifted_by) == (sync is Sync.DIFFERS)


def test_a_certain_difference_stays_one_whoever_refuses_to_answer() -> None:
    live = _live()
    live["spec"]["image"] = "orders:2"
    assert _look(live, answer=REFUSED)[0].sync is Sync.DIFFERS


def test_lists_are_compared_by_name_where_their_items_have_one() -> None:
    declared = {"spec": {"containers": [{"name": "a", "image": "a:1"}, {"name": "b", "ports": [80], "env": []}]}}
    live = {"spec": {"containers": [{"name": "a", "image": "a:1"}, {"name": "sidecar"}, {"name": "b", "ports": [80]}]}}
    assert means_the_same(declared, live)
    assert not means_the_same(live, declared)
    live["spec"]["containers"].reverse()
    assert not means_the_same(declared, live), "an apply would put them in order"
    deep: Any = {}
    for _ in range(20_000):
        deep = {"a": deep}
    assert not means_the_same({"spec": deep}, {"spec": deep})


def test_no_longer_declared() -> None:
    assert judge(None, _live(), _item(), Facts(), 1.0)[0].sync is Sync.DIFFERS
    assert judge(None, None, _item(), Facts(), 1.0)[0].sync is Sync.IN_SYNC
    with pytest.raises(ValueError, match="nothing to judge"):
        judge(None, None, None, Facts(), 1.0)


def test_an_argument_is_never_changed() -> None:
    desired, live = flink_deployment(), _live()
    before = copy.deepcopy((desired, live))
    judge(desired, live, _item(), Facts(), 1.0)
    assert (desired, live) == before


def test_the_manual_escape() -> None:
    live = _live()
    assert not is_disabled(live)
    assert not is_disabled(None)
    live["metadata"]["annotations"] = {"reconciler.dev/reconcile": "disabled"}
    assert is_disabled(live)


# ---- a target ----------------------------------------------------------------------------------------------------


def _part(name: str, sync: Sync, health: Health, code: str = "Running", **changes: Any) -> ObjectVerdict:
    key = ObjectKey("flink.apache.org", "FlinkDeployment", "orders", name)
    return replace(ObjectVerdict(key, sync, health, Reason(code, "said"), "u", 2), **changes)


def _items(*parts: ObjectVerdict, **changes: Any) -> dict[ObjectKey, InventoryItem]:
    item = InventoryItem(TARGET, parts[0].key, "v1", InventoryPhase.OWNED, "u", 2)
    return {part.key: replace(item, key=part.key, **changes) for part in parts}


@pytest.mark.parametrize(
    ("syncs", "expected"),
    [
        ([Sync.IN_SYNC, Sync.IN_SYNC], Sync.IN_SYNC),
        ([Sync.ASK, Sync.IN_SYNC], Sync.ASK),
        ([Sync.ASK, Sync.DIFFERS], Sync.DIFFERS),
        ([Sync.MISSING, Sync.DIFFERS], Sync.MISSING),
        ([Sync.MISSING, Sync.UNKNOWN], Sync.UNKNOWN),
        ([], Sync.UNKNOWN),
    ],
)
def test_the_worst_sync_is_the_targets(syncs: list[Sync], expected: Sync) -> None:
    parts = [_part(str(index), sync, Health.HEALTHY) for index, sync in enumerate(syncs)]
    assert judge_target(TARGET, "d", parts, {}, SEEN).sync is expected


def test_the_worst_health_names_its_object() -> None:
    parts = [_part("a", Sync.IN_SYNC, Health.HEALTHY), _part("b", Sync.IN_SYNC, Health.DEGRADED, "JobFailed")]
    verdict = judge_target(TARGET, "d", parts, _items(*parts), SEEN, disabled=True)
    assert (verdict.health, verdict.reason.code) == (Health.DEGRADED, "JobFailed")
    assert verdict.reason.message == "FlinkDeployment b: said"
    assert (verdict.observed_at, verdict.disabled, verdict.digest) == (5.0, True, "d")


def test_no_objects_are_never_healthy() -> None:
    verdict = judge_target(TARGET, "d", [], {}, SEEN)
    assert (verdict.health, verdict.applied) == (Health.UNKNOWN, False)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (["Present", "Running"], "Running"),
        (["Present", "JobFinished"], "JobFinished"),
        (["JobFinished", "Running"], "Running"),
        (["Present", "Present"], "Present"),
    ],
)
def test_of_equals_the_one_that_measured_gives_the_reason(codes: list[str], expected: str) -> None:
    parts = [_part(str(index), Sync.IN_SYNC, Health.HEALTHY, code) for index, code in enumerate(codes)]
    assert judge_target(TARGET, "d", parts, {}, SEEN).reason.code == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"generation": 1}, True),
        ({"generation": 3}, False),
        ({"uid": "other"}, False),
        ({"uid": ""}, False),
        ({"phase": InventoryPhase.INTENDED}, False),
        ({"phase": InventoryPhase.DELETING}, False),
    ],
)
def test_applied_is_our_object_at_our_generation(changes: dict[str, Any], expected: bool) -> None:
    parts = [_part("a", Sync.IN_SYNC, Health.HEALTHY), _part("b", Sync.IN_SYNC, Health.HEALTHY)]
    items = {**_items(parts[0]), **_items(parts[1], **changes)}
    assert judge_target(TARGET, "d", parts, items, SEEN).applied is expected


def test_an_object_that_is_in_no_inventory_is_not_applied() -> None:
    part = _part("a", Sync.IN_SYNC, Health.HEALTHY)
    assert not judge_target(TARGET, "d", [part], {}, SEEN).applied


def test_jobs_and_restarts_are_collected() -> None:
    parts = [
        _part("a", Sync.IN_SYNC, Health.HEALTHY, job_id="1", restarts=2),
        _part("b", Sync.IN_SYNC, Health.HEALTHY),
        _part("c", Sync.IN_SYNC, Health.HEALTHY, job_id="2", restarts=1),
    ]
    verdict = judge_target(TARGET, "d", parts, {}, SEEN)
    assert (verdict.job_ids, verdict.restarts) == (("1", "2"), 3)


@pytest.mark.parametrize(
    ("sync", "found", "expected"),
    [
        (Sync.IN_SYNC, Health.HEALTHY, 3.0),
        (Sync.IN_SYNC, Health.SUSPENDED, 3.0),
        (Sync.IN_SYNC, Health.DEGRADED, 9.0),
        (Sync.IN_SYNC, Health.PROGRESSING, 9.0),
        (Sync.DIFFERS, Health.HEALTHY, 9.0),
        (Sync.ASK, Health.HEALTHY, 9.0),
    ],
)
def test_good_news_is_as_old_as_its_oldest_proof_and_bad_news_is_new(
    sync: Sync, found: Health, expected: float
) -> None:
    parts = [_part("a", Sync.IN_SYNC, Health.HEALTHY), _part("b", sync, found)]
    assert judge_target(TARGET, "d", parts, {}, Seen(3.0, 9.0)).observed_at == expected


def test_suspended_by_hand_is_in_sync_and_no_success() -> None:
    status = {**_live()["status"], "lifecycleState": "SUSPENDED", "jobStatus": {"state": "FINISHED"}}
    desired = flink_deployment()
    live = {**applied(desired), "status": status}
    live["spec"]["job"]["state"] = "suspended"  # a field that we do not declare: no drift
    verdict, facts = judge(desired, live, _item(), Facts(), 100.0)
    said = (verdict.sync, verdict.health, verdict.reason.code)
    assert said == (Sync.IN_SYNC, Health.PROGRESSING, "SuspendedByHand")
    assert judge(desired, live, _item(), facts, 100.0 + 900.0)[0].health is Health.DEGRADED
    desired["spec"]["job"]["state"] = "suspended"
    declared = {**applied(desired), "status": status}
    assert judge(desired, declared, _item(), Facts(), 100.0)[0].health is Health.SUSPENDED
