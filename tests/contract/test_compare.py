"""The comparison on the client never contradicts the server: what it calls in sync, an apply would not change, and what
the server's dry-run would change is never called in sync."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from reconciler.core.diff import compare, same_after_dry_run
from reconciler.core.model import Manifest, Sync
from tests.contract.api import Api
from tests.core.field_owners import deployment, flink_deployment

_MARKS = {"labels": {"reconciler.dev/owner": "abc"}, "annotations": {"reconciler.dev/application": "fleet/x"}}


def _flink() -> Manifest:
    spec = flink_deployment()["spec"]
    template = {"spec": {"containers": [{"name": "flink-main-container", "env": [{"name": "A", "value": "b"}]}]}}
    return {"metadata": _MARKS, "spec": {**spec, "flinkVersion": "v1_20", "podTemplate": template}}


_PORTS = [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]

#: plural, what is declared
CASES: dict[str, tuple[str, Manifest]] = {
    "flink": ("flinkdeployments", _flink()),
    "deployment": ("deployments", {"metadata": _MARKS, "spec": deployment()["spec"]}),
    "service": ("services", {"metadata": _MARKS, "spec": {"selector": {"app": "web"}, "ports": _PORTS}}),
    "config map": ("configmaps", {"metadata": _MARKS, "data": {"a.b": "c", "d": "e\nf"}}),
    "secret": ("secrets", {"metadata": _MARKS, "type": "Opaque", "data": {"a": "aHVudGVyMg=="}}),
    "account": ("serviceaccounts", {"metadata": _MARKS}),
}

#: case, a path into the object, the value somebody else writes there (None: takes it away)
EDITS: dict[str, tuple[str, tuple[str, ...], Any]] = {
    "image": ("flink", ("spec", "image"), "orders:2"),
    "configuration": ("flink", ("spec", "flinkConfiguration", "taskmanager.numberOfTaskSlots"), "4"),
    "configuration key gone": ("flink", ("spec", "flinkConfiguration", "taskmanager.numberOfTaskSlots"), None),
    "parallelism": ("flink", ("spec", "job", "parallelism"), 8),
    "arguments": ("flink", ("spec", "job", "args"), ["--y"]),
    "pod template": ("flink", ("spec", "podTemplate", "spec", "containers"), [{"name": "x"}]),
    "replicas": ("deployment", ("spec", "replicas"), 5),
    "mark": ("deployment", ("metadata", "labels", "reconciler.dev/owner"), None),
    "port": ("service", ("spec", "ports"), [{**_PORTS[0], "targetPort": 9090}]),
    "selector": ("service", ("spec", "selector"), {"app": "other"}),
    "data": ("config map", ("data", "a.b"), "changed"),
    "data gone": ("config map", ("data", "d"), None),
}


def _patch(path: tuple[str, ...], value: Any) -> Any:
    return {path[0]: _patch(path[1:], value)} if path else value


@pytest.mark.parametrize("case", CASES)
def test_what_was_applied_is_in_sync_or_asked_about(api: Api, case: str) -> None:
    plural, declared = CASES[case]
    live = api.apply(plural, "a", declared).expect(201)
    desired = api.whole(plural, "a", declared)
    found = compare(desired, live)
    # A Deployment's quantities and the like may be asked about; nothing that was just applied ever differs.
    assert found.sync is Sync.IN_SYNC or (case == "deployment" and found.sync is Sync.ASK), found
    assert compare(desired, api.get(plural, "a").expect(200)) == found
    again = api.apply(plural, "a", declared, dryRun="All").expect(200)
    assert same_after_dry_run(live, again)


@pytest.mark.parametrize("edit", EDITS)
def test_what_somebody_else_changed_is_seen_and_repaired(api: Api, edit: str) -> None:
    case, path, value = EDITS[edit]
    plural, declared = CASES[case]
    applied = api.apply(plural, "a", declared).expect(201)
    desired = api.whole(plural, "a", declared)
    live = api.merge(plural, "a", _patch(path, value)).expect(200)
    found = compare(desired, live)
    assert found.sync in (Sync.DIFFERS, Sync.ASK), found
    assert not found.ownership_only
    would = api.apply(plural, "a", declared, dryRun="All", force="true").expect(200)
    assert not same_after_dry_run(live, would)
    repaired = api.apply(plural, "a", declared, force="true").expect(200)
    assert compare(desired, repaired).sync is compare(desired, applied).sync


def test_a_value_that_was_changed_and_put_back_is_ownership_only(api: Api) -> None:
    plural, declared = CASES["flink"]
    api.apply(plural, "a", declared).expect(201)
    api.merge(plural, "a", {"spec": {"image": "other"}}).expect(200)
    live = api.merge(plural, "a", {"spec": {"image": declared["spec"]["image"]}}).expect(200)
    desired = api.whole(plural, "a", declared)
    found = compare(desired, live)
    assert (found.sync, found.ownership_only) == (Sync.DIFFERS, True)
    assert [change.display for change in found.changes] == ["spec.image"]
    repaired = api.apply(plural, "a", declared, force="true").expect(200)
    assert compare(desired, repaired).sync is Sync.IN_SYNC


def test_what_others_add_is_nobody_s_drift(api: Api) -> None:
    plural, declared = CASES["flink"]
    api.apply(plural, "a", declared).expect(201)
    added = {
        "metadata": {"labels": {"theirs": "x"}, "finalizers": ["x.test/y"]},
        "spec": {"flinkConfiguration": {"theirs": "x"}, "restartNonce": 1},
    }
    api.merge(plural, "a", added).expect(200)
    live = api.get(plural, "a").expect(200)
    assert compare(api.whole(plural, "a", declared), live).sync is Sync.IN_SYNC


def test_a_release_that_drops_and_adds_fields(api: Api) -> None:
    plural, declared = CASES["flink"]
    live = api.apply(plural, "a", declared).expect(201)
    later = copy.deepcopy(declared)
    del later["spec"]["flinkConfiguration"]["taskmanager.numberOfTaskSlots"]
    later["spec"]["job"]["allowNonRestoredState"] = True
    found = compare(api.whole(plural, "a", later), live)
    assert sorted((change.op, change.display) for change in found.changes) == [
        ("add", "spec.job.allowNonRestoredState"),
        ("remove", "spec.flinkConfiguration[taskmanager.numberOfTaskSlots]"),
    ]
    after = api.apply(plural, "a", later).expect(200)
    assert compare(api.whole(plural, "a", later), after).sync is Sync.IN_SYNC
