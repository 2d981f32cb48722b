"""The engine's own promises: snapshots, write log, hooks, a driver's watches, variants, honesty about what it lacks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from reconciler.shell.transport import Request, Response, Stream, TransportError
from reconciler.sim.admission import Answer, Review, Webhook
from reconciler.sim.apiserver import SimApiServer
from reconciler.sim.problems import ApiError
from reconciler.sim.schema import load_catalog
from reconciler.sim.store import FIRST_REVISION, HISTORY_MAX, Event, Key
from reconciler.sim.watch import Watch

Object = dict[str, Any]
FLINK = "/apis/flink.apache.org/v1beta1/namespaces/default/flinkdeployments"
MAPS = "/api/v1/namespaces/default/configmaps"
KEY = Key("flink.apache.org", "FlinkDeployment", "default", "a")


def flink(name: str = "a", **spec: Any) -> Object:
    metadata = {"name": name, "namespace": "default", "labels": {"app": name}}
    return {"apiVersion": "flink.apache.org/v1beta1", "kind": "FlinkDeployment", "metadata": metadata, "spec": spec}


def config_map(name: str = "a", data: Mapping[str, str] | None = None) -> Object:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(data or {})}


def send(
    server: SimApiServer, method: str, path: str, body: Any = None, kind: str = "application/json", **query: str
) -> tuple[int, Any]:
    content = b"" if body is None else orjson.dumps(body)
    answer = server.handle(Request(method, path, tuple(query.items()), (("Content-Type", kind),), content))
    assert isinstance(answer, Response)
    return answer.status, orjson.loads(answer.body)


def apply(server: SimApiServer, body: Object, **query: str) -> tuple[int, Any]:
    folder = FLINK if body["kind"] == "FlinkDeployment" else MAPS
    path = f"{folder}/{body['metadata']['name']}"
    return send(server, "PATCH", path, body, "application/apply-patch+yaml", fieldManager="reconciler", **query)


def open_watch(server: SimApiServer, path: str, **query: str) -> Watch:
    answer = server.handle(Request("GET", path, (("watch", "true"), *query.items())))
    assert isinstance(answer, Stream)
    assert isinstance(answer.lines, Watch)
    return answer.lines


async def types_of(watch: Watch, count: int) -> list[str]:
    return [orjson.loads(await anext(watch))["type"] for _ in range(count)]


# ------------------------------------------------------------------------------------------------- snapshot, restore


def test_a_snapshot_is_untouched_by_later_writes_and_can_be_restored_twice() -> None:
    server = SimApiServer()
    apply(server, flink(image="i:1"))
    saved = server.snapshot()
    apply(server, flink(image="i:2"))
    apply(server, flink("b", image="i:2"))
    server.delete(KEY)

    for _ in range(2):
        copy = SimApiServer.restore(saved, now=lambda: 5.0)
        assert [value["spec"]["image"] for value in copy.objects("FlinkDeployment")] == ["i:1"]
        assert [entry.verb for entry in copy.log] == ["patch"]
        assert dict(copy.requests) == {"patch": 1}
        _, answer = apply(copy, flink("c", image="i:3"))
        assert answer["metadata"]["creationTimestamp"] == "1970-01-01T00:00:05Z"
    assert [value["metadata"]["name"] for value in server.objects("FlinkDeployment")] == ["b"]


def test_restored_and_undisturbed_servers_go_on_alike() -> None:
    first = SimApiServer(seed="s")
    apply(first, flink(image="i:1"))
    second = SimApiServer.restore(first.snapshot(), now=first.now)
    answers = [apply(server, flink(name, image="i:2")) for server in (first, second) for name in ("a", "b")]
    assert answers[:2] == answers[2:]
    assert first.log == second.log


def test_a_watch_on_a_restored_server_replays_its_history() -> None:
    server = SimApiServer()
    start = server.revision
    apply(server, flink(image="i:1"))
    apply(server, flink(image="i:2"))
    copy = SimApiServer.restore(server.snapshot(), now=server.now)

    async def replay() -> list[str]:
        watch = open_watch(copy, FLINK, resourceVersion=str(start))
        found = await types_of(watch, 2)
        await watch.aclose()
        return found

    assert asyncio.run(replay()) == ["ADDED", "MODIFIED"]


def test_a_seed_makes_the_identities() -> None:
    uids = [apply(SimApiServer(seed=seed), flink(image="i"))[1]["metadata"]["uid"] for seed in ("x", "x", "y")]
    assert uids[0] == uids[1] != uids[2]


# ---------------------------------------------------------------------------------------------------- log and hooks


def test_the_log_tells_what_each_write_did() -> None:
    server = SimApiServer(now=lambda: 7.0)
    made = apply(server, flink(image="i:1"))[1]["metadata"]
    apply(server, flink(image="i:1"))
    apply(server, flink(image="i:2"), dryRun="All")
    send(server, "PATCH", f"{FLINK}/a", {"spec": {"mode": "nonsense"}}, "application/merge-patch+json")
    server.apply_status(KEY, {"lifecycleState": "STABLE"})
    server.delete(KEY)

    facts = [(one.verb, one.changed, one.dry_run, one.code, one.manager, one.subresource) for one in server.log]
    assert facts == [
        ("patch", True, False, 201, "reconciler", ""),
        ("patch", False, False, 200, "reconciler", ""),
        ("patch", False, True, 200, "reconciler", ""),
        ("patch", False, False, 422, "unknown", ""),
        ("patch", True, False, 200, "flink-kubernetes-operator", "status"),
        ("delete", True, False, 200, "flink-kubernetes-operator", ""),
    ]
    assert [one.sequence for one in server.log] == [1, 2, 3, 4, 5, 6]
    assert {(one.uid, one.key, one.time, one.labels["app"]) for one in server.log} == {(made["uid"], KEY, 7.0, "a")}
    assert (server.log[0].revision_before, server.log[0].revision_after) == (0, int(made["resourceVersion"]))
    assert server.log[0].digest == server.log[1].digest != server.log[2].digest
    assert dict(server.requests) == {"patch": 4, "refused": 1}


def test_webhooks_see_what_simulated_controllers_do_and_a_namespace_waits_for_what_they_keep() -> None:
    server = SimApiServer()
    kept = [True]

    def keep(review: Review) -> Answer:
        assert review.object is None
        return Answer(allowed=not kept[0], message="keep it")

    server.webhooks.append(Webhook("keep.example.com", keep, operations=("DELETE",), resources=("configmaps",)))
    server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    server.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "shop"}})
    with pytest.raises(ApiError, match=r'"keep.example.com" denied the request: keep it'):
        server.delete(Key("", "ConfigMap", "shop", "a"))
    server.delete(Key("", "Namespace", "", "shop"))
    server.tick()
    assert server.read(Key("", "ConfigMap", "shop", "a")) is not None
    kept[0] = False
    server.tick()
    assert server.read(Key("", "Namespace", "", "shop")) is None


def test_observers_are_told_after_watches_and_may_write() -> None:
    server = SimApiServer()
    seen: list[tuple[str, str]] = []

    def operator(key: Key, event: Event) -> None:
        seen.append((key.kind, event.type))
        if key == KEY and event.type == "ADDED":
            server.apply_status(key, {"lifecycleState": "CREATED"})

    server.observe(operator)
    apply(server, flink(image="i"))
    apply(server, config_map())
    assert seen == [("FlinkDeployment", "ADDED"), ("FlinkDeployment", "MODIFIED"), ("ConfigMap", "ADDED")]


def test_a_status_written_by_a_controller_is_a_status_patch() -> None:
    server, other = SimApiServer(), SimApiServer()
    apply(server, flink(image="i"))
    apply(other, flink(image="i"))
    server.apply_status(KEY, {"lifecycleState": "STABLE", "jobStatus": {"state": "RUNNING"}})
    value = server.apply_status(KEY, {"jobStatus": {"state": "FAILED"}, "error": None})
    patches: list[Object] = [
        {"lifecycleState": "STABLE", "jobStatus": {"state": "RUNNING"}},
        {"jobStatus": {"state": "FAILED"}, "error": None},
    ]
    for patch in patches:
        query = {"fieldManager": "flink-kubernetes-operator"}
        answer = send(other, "PATCH", f"{FLINK}/a/status", {"status": patch}, "application/merge-patch+json", **query)
    assert value == answer[1]
    assert value["status"] == {"lifecycleState": "STABLE", "jobStatus": {"state": "FAILED"}}
    assert value["metadata"]["generation"] == 1
    assert dict(server.requests) == {"patch": 1}
    with pytest.raises(ApiError, match="not found"):
        server.apply_status(Key("flink.apache.org", "FlinkDeployment", "default", "absent"), {})


def test_tokens_are_users() -> None:
    server = SimApiServer(users={"secret": "reconciler"})
    assert send(server, "GET", MAPS)[0] == 401
    transport = server.transport("secret")
    content = (("Content-Type", "application/json"),)
    request = Request("POST", MAPS, (), content, orjson.dumps(config_map()))
    assert asyncio.run(transport.request(request)).status == 201
    assert [entry.user for entry in server.log] == ["reconciler"]


# ----------------------------------------------------------------------------------------------------------- watches


def test_pending_events_are_those_not_yet_read() -> None:
    async def story() -> None:
        server = SimApiServer()
        watch = open_watch(server, FLINK, resourceVersion=str(server.revision), labelSelector="app=a")
        reader = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        apply(server, flink(image="i:1"))
        apply(server, flink("b", image="i:1"))
        apply(server, flink(image="i:2"))
        assert server.pending_events() == 2, "the other object is not in view"
        assert orjson.loads(await reader)["type"] == "ADDED"
        assert server.pending_events() == 1
        assert await types_of(watch, 1) == ["MODIFIED"]
        assert (server.pending_events(), server.open_watches()) == (0, 1)
        await watch.aclose()
        assert server.open_watches() == 0

    asyncio.run(story())


def test_bookmarks_and_ends_follow_a_clock_that_jumps() -> None:
    async def story() -> None:
        now = 0.0
        server = SimApiServer(watch_clock=lambda: now, bookmark_interval_s=60)
        query = {"resourceVersion": "0", "allowWatchBookmarks": "true", "timeoutSeconds": "300"}
        watch = open_watch(server, FLINK, **query)
        server.tick()
        assert server.pending_events() == 0
        now = 61.0
        server.tick()
        bookmark = orjson.loads(await anext(watch))
        assert (bookmark["type"], bookmark["object"]["metadata"]["resourceVersion"]) == (
            "BOOKMARK",
            str(server.revision),
        )
        now = 301.0
        server.tick()
        assert await types_of(watch, 1) == ["BOOKMARK"]
        with pytest.raises(StopAsyncIteration):
            await anext(watch)
        assert server.open_watches() == 0

    asyncio.run(story())


def test_ended_watches_are_read_to_the_end() -> None:
    async def story() -> list[str]:
        server = SimApiServer()
        found = []
        async with server.transport().stream(Request("GET", FLINK, (("watch", "true"),))) as stream:
            apply(server, flink(image="i"))
            server.end_watches()
            apply(server, flink(image="j"))
            found += [orjson.loads(line)["type"] async for line in stream.lines]
        assert server.open_watches() == 0
        return found

    assert asyncio.run(story()) == ["ADDED"]


def test_a_closed_transport_refuses_and_ends_its_watches() -> None:
    async def story() -> None:
        transport = SimApiServer().transport()
        async with transport.stream(Request("GET", FLINK, (("watch", "true"),))) as stream:
            await transport.close()
            assert [line async for line in stream.lines] == []
        with pytest.raises(TransportError):
            await transport.request(Request("GET", FLINK))

    asyncio.run(story())


def test_the_history_is_bounded() -> None:
    server = SimApiServer()
    for number in range(2 * HISTORY_MAX + 10):
        server.create(config_map(f"c{number}"))
    code, body = send(server, "GET", MAPS, resourceVersion=str(FIRST_REVISION + 50), resourceVersionMatch="Exact")
    assert (code, body["reason"]) == (410, "Expired")
    recent = str(server.revision - 10)
    assert len(send(server, "GET", MAPS, resourceVersion=recent, resourceVersionMatch="Exact")[1]["items"]) == 2000


# --------------------------------------------------------------------------------------------- namespaces, variants


def test_a_namespace_goes_with_what_is_in_it_but_waits_for_finalizers() -> None:
    server = SimApiServer()
    body = flink(image="i")
    body["metadata"]["finalizers"] = ["flinkdeployments.flink.apache.org/finalizer"]
    apply(server, body)
    apply(server, config_map())
    server.delete(Key("", "Namespace", "", "default"))
    server.tick()
    assert server.objects("ConfigMap", "") == []
    assert [one["metadata"]["name"] for one in server.objects("FlinkDeployment")] == ["a"]
    server.merge(KEY, {"metadata": {"finalizers": None}})
    server.tick()
    assert server.read(KEY) is None
    assert server.read(Key("", "Namespace", "", "default")) is None


def test_a_cluster_may_serve_less() -> None:
    catalog = load_catalog()
    fields = {"FlinkDeployment": [("spec", "restartNonce"), ("spec", "job", "args")]}
    server = SimApiServer(catalog=catalog.variant(without_kinds=["FlinkSessionJob"], without_fields=fields))
    code, body = apply(server, flink(image="i", restartNonce=1))
    assert code == 500
    assert body["message"] == (
        "failed to create typed patch object (default/a; flink.apache.org/v1beta1, Kind=FlinkDeployment): "
        ".spec.restartNonce: field not declared in schema"
    )
    assert apply(server, flink(image="i", job={"jarURI": "x"}))[0] == 201
    missing = FLINK.replace("flinkdeployments", "flinksessionjobs")
    answer = server.handle(Request("GET", missing))
    assert (answer.status, answer.body) == (404, b"404 page not found\n")
    server.set_catalog(catalog)
    assert apply(server, flink(image="i", restartNonce=1))[0] == 200
    assert send(server, "GET", missing)[0] == 200
    with pytest.raises(ValueError, match="no field"):
        catalog.variant(without_fields={"FlinkDeployment": [("spec", "nonsense")]})


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/openapi/v2", "application/json"),
        ("GET", f"{FLINK}/a/scale", "application/json"),
        ("DELETE", MAPS, "application/json"),
        ("PATCH", f"{MAPS}/a", "application/strategic-merge-patch+json"),
    ],
)
def test_what_is_not_covered_is_said_and_not_guessed(method: str, path: str, kind: str) -> None:
    server = SimApiServer()
    apply(server, config_map())
    code, body = send(server, method, path, {} if method == "PATCH" else None, kind)
    assert (code, body["reason"]) == (501, "NotImplemented")
    assert body["message"].startswith("the simulated API server does not cover ")
