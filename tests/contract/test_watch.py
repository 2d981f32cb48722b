"""Watches: events in order, selectors, bookmarks, initial events, versions that are too old."""

from __future__ import annotations

import pytest

from reconciler.shell.transport import Request
from tests.contract.api import METADATA, Api


def version(api: Api, plural: str) -> str:
    """The collection's resource version now."""
    return str(api.list(plural).expect(200)["metadata"]["resourceVersion"])


def test_events_follow_the_list_in_order(api: Api) -> None:
    start = version(api, "configmaps")
    with api.watch("configmaps", resourceVersion=start) as watch:
        made = api.create("configmaps", "a", {"data": {"k": "v"}}).expect(201)
        changed = api.merge("configmaps", "a", {"data": {"k": "w"}}).expect(200)
        api.delete("configmaps", "a").expect(200)
        events = [watch.next() for _ in range(3)]
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert events[0]["object"] == made
    assert events[1]["object"] == changed
    gone = events[2]["object"]
    assert gone["metadata"]["uid"] == made["metadata"]["uid"]
    assert int(gone["metadata"]["resourceVersion"]) > int(changed["metadata"]["resourceVersion"])


def test_a_write_that_changes_nothing_and_a_dry_run_are_no_events(api: Api) -> None:
    first = api.apply("configmaps", "a", {"data": {"k": "v"}}).expect(201)
    with api.watch("configmaps", resourceVersion=first["metadata"]["resourceVersion"]) as watch:
        api.apply("configmaps", "a", {"data": {"k": "v"}}).expect(200)
        api.apply("configmaps", "a", {"data": {"k": "w"}}, dryRun="All").expect(200)
        api.create("configmaps", "b", {}).expect(201)
        assert watch.next()["object"]["metadata"]["name"] == "b"


def test_a_watch_from_an_older_version_replays(api: Api) -> None:
    start = version(api, "configmaps")
    api.create("configmaps", "a", {}).expect(201)
    api.delete("configmaps", "a").expect(200)
    with api.watch("configmaps", resourceVersion=start) as watch:
        assert [watch.next()["type"] for _ in range(2)] == ["ADDED", "DELETED"]


@pytest.mark.parametrize("start", [{}, {"resourceVersion": "0"}], ids=["none", "zero"])
def test_a_watch_without_a_version_begins_with_what_is_there(api: Api, start: dict[str, str]) -> None:
    for name in ("a", "b"):
        api.create("configmaps", name, {}).expect(201)
    api.delete("configmaps", "a").expect(200)
    api.list("configmaps").expect(200)
    with api.watch("configmaps", **start) as watch:
        api.create("configmaps", "c", {}).expect(201)
        events = [watch.next() for _ in range(2)]
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in events] == [
        ("ADDED", "b"),
        ("ADDED", "c"),
    ]


def test_an_object_that_leaves_or_enters_a_selector_is_deleted_or_added(api: Api) -> None:
    api.create("configmaps", "a", {"metadata": {"labels": {"mine": "yes"}}}).expect(201)
    with api.watch("configmaps", resourceVersion=version(api, "configmaps"), labelSelector="mine=yes") as watch:
        api.merge("configmaps", "a", {"data": {"k": "v"}}).expect(200)
        left = api.merge("configmaps", "a", {"metadata": {"labels": {"mine": "no"}}}).expect(200)
        api.merge("configmaps", "a", {"data": {"k": "w"}}).expect(200)
        api.merge("configmaps", "a", {"metadata": {"labels": {"mine": "yes"}}}).expect(200)
        events = [watch.next() for _ in range(3)]
    assert [event["type"] for event in events] == ["MODIFIED", "DELETED", "ADDED"]
    gone = events[1]["object"]["metadata"]
    assert gone["labels"] == {"mine": "yes"}, "the object as it was before it left"
    assert gone["resourceVersion"] == left["metadata"]["resourceVersion"], "at the version at which it left"


def test_a_watch_by_name(api: Api) -> None:
    start = version(api, "configmaps")
    with api.watch("configmaps", resourceVersion=start, fieldSelector="metadata.name=b") as watch:
        for name in ("a", "b"):
            api.create("configmaps", name, {}).expect(201)
        assert watch.next()["object"]["metadata"]["name"] == "b"


def test_bookmarks_come_before_a_watch_times_out(api: Api) -> None:
    api.create("configmaps", "a", {}).expect(201)
    start = version(api, "configmaps")
    with api.watch("configmaps", resourceVersion=start, allowWatchBookmarks="true", timeoutSeconds="4") as watch:
        made = api.create("configmaps", "b", {}).expect(201)
        events = watch.rest()
    assert events[0]["type"] == "ADDED"
    bookmarks = events[1:]
    assert bookmarks
    for bookmark in bookmarks:
        assert bookmark["type"] == "BOOKMARK"
        assert (bookmark["object"]["kind"], bookmark["object"]["apiVersion"]) == ("ConfigMap", "v1")
        assert sorted(bookmark["object"]["metadata"]) == ["resourceVersion"]
        assert int(bookmark["object"]["metadata"]["resourceVersion"]) >= int(made["metadata"]["resourceVersion"])


def test_no_bookmarks_unless_asked_for(api: Api) -> None:
    with api.watch("configmaps", resourceVersion=version(api, "configmaps"), timeoutSeconds="3") as watch:
        assert watch.rest() == []


@pytest.mark.parametrize("plural", ["configmaps", "specimens"])
def test_initial_events_end_with_a_bookmark(api: Api, plural: str) -> None:
    body = {"spec": {"title": "a"}} if plural == "specimens" else {}
    for name in ("a", "b"):
        api.create(plural, name, body).expect(201)
    newest = version(api, plural)
    asked = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    with api.watch(plural, **asked) as watch:
        events = [watch.next_of_any_type() for _ in range(3)]
        api.create(plural, "c", body).expect(201)
        assert watch.next()["object"]["metadata"]["name"] == "c"
    assert [event["type"] for event in events] == ["ADDED", "ADDED", "BOOKMARK"]
    assert [event["object"]["metadata"]["name"] for event in events[:2]] == ["a", "b"]
    end = events[2]["object"]["metadata"]
    assert end["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert int(end["resourceVersion"]) >= int(newest)


def test_a_version_older_than_the_history_is_gone(api: Api) -> None:
    # The history of a custom kind begins when its first request comes, after many writes; version 1 is before it.
    with api.watch("specimens", resourceVersion="1") as watch:
        event = watch.next()
        assert watch.next_line() is None, "the server ends the watch"
    assert event["type"] == "ERROR"
    status = event["object"]
    assert (status["kind"], status["code"], status["reason"]) == ("Status", 410, "Expired")
    assert status["message"].startswith("too old resource version: 1 (")


def test_options_that_contradict_each_other(api: Api) -> None:
    for query in ({"sendInitialEvents": "true"}, {"resourceVersionMatch": "NotOlderThan"}):
        pairs = (("watch", "true"), *query.items())
        response = api.run(api.transport.request(Request("GET", api.path("configmaps"), pairs)))
        assert response.status == 422


def test_metadata_events(api: Api) -> None:
    start = version(api, "configmaps")
    with api.watch("configmaps", resourceVersion=start, accept=METADATA) as watch:
        made = api.create("configmaps", "a", {"data": {"k": "v"}}).expect(201)
        event = watch.next()
    assert event["type"] == "ADDED"
    assert event["object"] == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": made["metadata"],
    }


def test_status_changes_are_events(api: Api) -> None:
    made = api.create("flinkdeployments", "a", {"spec": {"image": "x"}}).expect(201)
    with api.watch("flinkdeployments", resourceVersion=made["metadata"]["resourceVersion"]) as watch:
        after = api.merge("flinkdeployments", "a", {"status": {"lifecycleState": "STABLE"}}, sub="status").expect(200)
        event = watch.next()
    assert (event["type"], event["object"]) == ("MODIFIED", after)


def test_a_long_line_arrives_whole(api: Api) -> None:
    start = version(api, "configmaps")
    with api.watch("configmaps", resourceVersion=start) as watch:
        api.create("configmaps", "a", {"data": {"k": "x" * 700_000}}).expect(201)
        assert len(watch.next()["object"]["data"]["k"]) == 700_000
