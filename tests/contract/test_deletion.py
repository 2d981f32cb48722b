"""Deletion: preconditions, finalizers, propagation."""

from __future__ import annotations

import pytest

from tests.contract.api import Api


def test_delete_answers_what_it_deleted(api: Api) -> None:
    made = api.create("configmaps", "a", {}).expect(201)
    answer = api.delete("configmaps", "a").expect(200)
    assert answer == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]},
    }
    api.get("configmaps", "a").expect_error(404, "NotFound")
    api.delete("configmaps", "a").expect_error(404, "NotFound")


def test_delete_of_a_custom_object_names_its_group(api: Api) -> None:
    made = api.create("flinkdeployments", "a", {"spec": {}}).expect(201)
    details = api.delete("flinkdeployments", "a").expect(200)["details"]
    assert details == {
        "name": "a",
        "group": "flink.apache.org",
        "kind": "flinkdeployments",
        "uid": made["metadata"]["uid"],
    }


@pytest.mark.parametrize("plural", ["configmaps", "specimens"])
def test_a_wrong_precondition_is_a_conflict(api: Api, plural: str) -> None:
    body = {"spec": {"title": "a"}} if plural == "specimens" else {}
    made = api.create(plural, "a", body).expect(201)
    error = api.delete(plural, "a", {"preconditions": {"uid": "other"}}).expect_error(409, "Conflict")
    assert (
        f"the UID in the precondition (other) does not match the UID in record ({made['metadata']['uid']})"
        in (error["message"])
    )
    error = api.delete(plural, "a", {"preconditions": {"resourceVersion": "1"}}).expect_error(409, "Conflict")
    assert "the ResourceVersion in the precondition (1) does not match" in error["message"]
    right = {"uid": made["metadata"]["uid"], "resourceVersion": made["metadata"]["resourceVersion"]}
    api.delete(plural, "a", {"preconditions": right}).expect(200)


def test_a_dry_run_deletes_nothing(api: Api) -> None:
    made = api.create("configmaps", "a", {}).expect(201)
    api.delete("configmaps", "a", {"dryRun": ["All"]}).expect(200)
    api.delete("configmaps", "a", dryRun="All").expect(200)
    assert api.get("configmaps", "a").expect(200) == made


def test_an_object_with_finalizers_waits_for_the_last_one(api: Api) -> None:
    made = api.create("configmaps", "a", {"metadata": {"finalizers": ["x.test/a", "x.test/b"]}}).expect(201)
    asked = api.delete("configmaps", "a").expect(200)
    assert asked["kind"] == "ConfigMap", "the object, not a Status: it is still there"
    assert asked["metadata"]["deletionTimestamp"]
    assert asked["metadata"]["deletionGracePeriodSeconds"] == 0
    assert asked["metadata"]["uid"] == made["metadata"]["uid"]
    assert api.delete("configmaps", "a").expect(200) == asked, "asking again changes nothing"
    one = api.merge("configmaps", "a", {"metadata": {"finalizers": ["x.test/b"]}}).expect(200)
    assert one["metadata"]["deletionTimestamp"] == asked["metadata"]["deletionTimestamp"]
    last = api.merge("configmaps", "a", {"metadata": {"finalizers": None}}).expect(200)
    assert "finalizers" not in last["metadata"]
    api.get("configmaps", "a").expect_error(404, "NotFound")


def test_no_finalizer_is_added_to_an_object_that_is_being_deleted(api: Api) -> None:
    api.create("configmaps", "a", {"metadata": {"finalizers": ["x.test/a"]}}).expect(201)
    api.delete("configmaps", "a").expect(200)
    more = {"metadata": {"finalizers": ["x.test/a", "x.test/b"]}}
    error = api.merge("configmaps", "a", more).expect_error(422, "Invalid")
    assert {cause["field"] for cause in error["details"]["causes"]} == {"metadata.finalizers"}


def test_a_watcher_sees_the_deletion_asked_for_and_then_done(api: Api) -> None:
    made = api.create("configmaps", "a", {"metadata": {"finalizers": ["x.test/a"]}}).expect(201)
    with api.watch("configmaps", resourceVersion=made["metadata"]["resourceVersion"]) as watch:
        api.delete("configmaps", "a").expect(200)
        api.merge("configmaps", "a", {"metadata": {"finalizers": None}}).expect(200)
        events = [watch.next() for _ in range(2)]
    assert [event["type"] for event in events] == ["MODIFIED", "DELETED"]
    assert all("deletionTimestamp" in event["object"]["metadata"] for event in events)
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions[0] < versions[1]


@pytest.mark.parametrize(("policy", "finalizer"), [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")])
def test_foreground_and_orphan_leave_the_end_to_the_garbage_collector(api: Api, policy: str, finalizer: str) -> None:
    api.create("flinkdeployments", "a", {"spec": {}}).expect(201)
    asked = api.delete("flinkdeployments", "a", {"propagationPolicy": policy}).expect(200)
    assert asked["metadata"]["finalizers"] == [finalizer]
    assert "deletionTimestamp" in asked["metadata"]


def test_background_deletes_at_once(api: Api) -> None:
    api.create("flinkdeployments", "a", {"spec": {}}).expect(201)
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
    assert api.delete("flinkdeployments", "a", options).expect(200)["kind"] == "Status"
    api.get("flinkdeployments", "a").expect(404)


def test_an_unknown_policy_is_invalid(api: Api) -> None:
    api.create("configmaps", "a", {}).expect(201)
    error = api.delete("configmaps", "a", {"propagationPolicy": "Nope"}).expect_error(422, "Invalid")
    assert [cause["field"] for cause in error["details"]["causes"]] == ["propagationPolicy"]


def test_a_recreated_object_is_another_one(api: Api) -> None:
    first = api.create("configmaps", "a", {}).expect(201)
    api.delete("configmaps", "a").expect(200)
    second = api.create("configmaps", "a", {}).expect(201)
    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    api.delete("configmaps", "a", {"preconditions": {"uid": first["metadata"]["uid"]}}).expect_error(409, "Conflict")
