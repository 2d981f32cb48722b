"""The Kubernetes adapter over a scripted transport: what it sends, and what it makes of answers."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from reconciler.core.model import Manifest, ObjectKey
from reconciler.shell import kube_errors as errors
from reconciler.shell.identity import Identity
from reconciler.shell.kube_answers import WatchEvent
from reconciler.shell.kube_cluster import DISCOVERY_INTERVAL_S, KubeCluster
from reconciler.shell.kube_errors import Outcome
from reconciler.shell.transport import Request, Response, Stream, TransportError
from reconciler.sim.loop import run

KEY = ObjectKey("", "ConfigMap", "p", "a")
PATH = "/api/v1/namespaces/p/configmaps/a"
OBJECT: Manifest = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {
        "name": "a",
        "namespace": "p",
        "uid": "u1",
        "resourceVersion": "7",
        "managedFields": [{"manager": "x"}],
    },
    "data": {"k": "v"},
}
CORE = {
    "kind": "APIResourceList",
    "resources": [
        {"name": "namespaces", "kind": "Namespace", "namespaced": False},
        {"name": "namespaces/status", "kind": "Namespace", "namespaced": False},
        {"name": "pods/eviction", "kind": "Eviction", "namespaced": True},
        {"name": "configmaps", "kind": "ConfigMap", "namespaced": True},
        {"name": "../secrets", "kind": "Hostile", "namespaced": True},
    ],
}


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on the simulator's loop, where an idle deadline costs nothing."""

    @functools.wraps(test)
    def wrapper(*args: Any, **named: Any) -> None:
        run(test(*args, **named))

    return wrapper


def json_response(value: Any, status: int = 200) -> Response:
    return Response(status, {}, json.dumps(value).encode())


def refused(code: int, reason: str, **more: Any) -> Response:
    return json_response({"kind": "Status", "code": code, "reason": reason, "message": reason, **more}, code)


class Script:
    """A transport that answers what it is told to, in order; discovery of v1 is always answered."""

    def __init__(self, *answers: Response | TransportError, lines: list[bytes] | None = None) -> None:
        self.answers = list(answers)
        self.lines = lines
        self.requests: list[Request] = []
        self.discovered = 0
        self.core: dict[str, Any] = CORE
        self.silent = False
        self.closed = False

    async def request(self, request: Request) -> Response:
        if request.path == "/api/v1":
            self.discovered += 1
            return json_response(self.core)
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, TransportError):
            raise answer
        return answer

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[Stream]:
        self.requests.append(request)
        if self.lines is None:
            answer = self.answers.pop(0)
            assert isinstance(answer, Response)
            yield Stream(answer.status, answer.headers, answer.body, self._yield([]))
        else:
            yield Stream(200, {}, b"", self._yield(self.lines))

    async def _yield(self, lines: list[bytes]) -> AsyncGenerator[bytes, None]:
        for line in lines:
            yield line
        if self.silent:
            await asyncio.Event().wait()

    async def close(self) -> None:
        self.closed = True


def cluster_of(script: Script) -> KubeCluster:
    return KubeCluster("c", script, user_agent="test/1")


# ---- single objects ----------------------------------------------------------------------------------------------


@in_virtual_time
async def test_get() -> None:
    script = Script(json_response(OBJECT), refused(404, "NotFound", details={"name": "a", "kind": "configmaps"}))
    cluster = cluster_of(script)
    assert await cluster.get("v1", KEY) == OBJECT
    assert await cluster.get("v1", KEY) is None
    assert script.requests[0] == Request(
        "GET", PATH, (), (("accept", "application/json"), ("user-agent", "test/1")), b"", script.requests[0].timeout_s
    )


@pytest.mark.parametrize(
    "answer",
    [
        Response(200, {}, b"<html>"),
        Response(200, {}, b'{"kind":"ConfigMap","metadata":{"name":"a"'),
        Response(200, {}, b"[]"),
        json_response({**OBJECT, "metadata": {**OBJECT["metadata"], "name": "b"}}),
        json_response({**OBJECT, "kind": "Secret"}),
        json_response({**OBJECT, "metadata": {"name": "a", "namespace": "p"}}),
        json_response({**OBJECT, "metadata": {**OBJECT["metadata"], "uid": 5}}),
        json_response({"kind": "Status", "status": "Success"}),
    ],
)
@in_virtual_time
async def test_what_is_not_the_object_asked_for_is_an_error(answer: Response) -> None:
    with pytest.raises(errors.ServerError) as caught:
        await cluster_of(Script(answer)).get("v1", KEY)
    assert (caught.value.outcome, caught.value.answered) == (Outcome.TEMPORARY, False)
    with pytest.raises(errors.ServerError) as caught:
        await cluster_of(Script(answer)).apply(OBJECT, uid="u1", force=True, dry_run=False)
    assert caught.value.outcome is Outcome.AMBIGUOUS


@in_virtual_time
async def test_apply_sends_what_guards_it() -> None:
    script = Script(*[json_response(OBJECT)] * 3)
    cluster = cluster_of(script)
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a", "namespace": "p"},
        "data": {"k": "v"},
    }
    assert await cluster.apply(manifest, uid=None, force=False, dry_run=False) == OBJECT
    await cluster.apply(manifest, uid="u1", force=True, dry_run=True)
    await cluster.apply(manifest, uid="u1", force=True, dry_run=False, resource_version="7")
    create, dry_run, guarded = script.requests
    assert (create.method, create.path) == ("PATCH", PATH)
    assert ("content-type", "application/apply-patch+yaml") in create.headers
    assert create.query == (("fieldManager", "reconciler"), ("fieldValidation", "Strict"))
    # It is created, and nothing that is there is changed: no object has that version.
    creating = {**manifest, "metadata": {"name": "a", "namespace": "p", "resourceVersion": "1"}}
    assert json.loads(create.body) == creating
    assert dry_run.query[2:] == (("force", "true"), ("dryRun", "All"))
    assert json.loads(dry_run.body)["metadata"] == {"name": "a", "namespace": "p", "uid": "u1"}
    assert json.loads(guarded.body)["metadata"]["resourceVersion"] == "7"
    assert manifest["metadata"] == {"name": "a", "namespace": "p"}, "the argument is left as it was"
    with pytest.raises(ValueError, match="create a deleted object again"):
        await cluster.apply(manifest, uid=None, force=True, dry_run=False, resource_version="7")
    assert len(script.requests) == 3


@in_virtual_time
async def test_a_lost_answer_to_a_dry_run_is_not_ambiguous() -> None:
    lost = TransportError("reset", sent=True)
    cluster = cluster_of(Script(lost, lost))
    for dry_run, outcome in ((True, Outcome.TEMPORARY), (False, Outcome.AMBIGUOUS)):
        with pytest.raises(errors.UnreachableError) as caught:
            await cluster.apply(OBJECT, uid="u1", force=True, dry_run=dry_run)
        assert caught.value.outcome is outcome
        assert caught.value.__cause__ is lost


@in_virtual_time
async def test_what_a_source_writes_is_written_as_its_tenant_and_what_is_read_is_not() -> None:
    tenants = {"payments": Identity("reconciler:tenant:payments", ("team-a", "team-b")), "own": None}
    script = Script(*[json_response(OBJECT)] * 5)
    cluster = KubeCluster("c", script, identities=tenants.__getitem__)
    acting = cluster.acting_for("payments")
    assert await acting.get("v1", KEY) == OBJECT
    await acting.apply(OBJECT, uid=None, force=False, dry_run=False)
    await acting.apply(OBJECT, uid="u1", force=True, dry_run=True)
    await acting.delete("v1", KEY, "u1")
    await cluster.acting_for("own").apply(OBJECT, uid="u1", force=True, dry_run=False)
    found = [
        [header for header in request.headers if header[0].lower().startswith("impersonate")]
        for request in script.requests
    ]
    named = [
        ("Impersonate-User", "reconciler:tenant:payments"),
        ("Impersonate-Group", "team-a"),
        ("Impersonate-Group", "team-b"),
    ]
    assert found == [[], named, named, named, []]
    assert KubeCluster("c", script).acting_for("payments").identity is None


@pytest.mark.parametrize(
    ("answer", "gone"),
    [
        (json_response({"kind": "Status", "status": "Success"}), True),
        (refused(404, "NotFound", details={"name": "a", "kind": "configmaps"}), True),
        (json_response(OBJECT), False),
        (json_response(OBJECT, 202), False),
    ],
    ids=["deleted", "was not there", "finalizers", "accepted"],
)
@in_virtual_time
async def test_delete_says_whether_the_object_is_gone(answer: Response, gone: bool) -> None:
    script = Script(answer)
    assert await cluster_of(script).delete("v1", KEY, "u1") is gone
    assert script.requests[0].method == "DELETE"
    body = json.loads(script.requests[0].body)
    assert (body["preconditions"], body["propagationPolicy"]) == ({"uid": "u1"}, "Background")


@in_virtual_time
async def test_delete_of_another_object_is_a_conflict() -> None:
    with pytest.raises(errors.ObjectConflictError):
        await cluster_of(Script(refused(409, "Conflict"))).delete("v1", KEY, "u2")


@pytest.mark.parametrize(
    ("key", "error"),
    [
        (ObjectKey("", "ConfigMap", "p", "../../secrets/x"), errors.InvalidError),
        (ObjectKey("", "ConfigMap", "p", ".."), errors.InvalidError),
        (ObjectKey("", "ConfigMap", "p", "a%2f"), errors.InvalidError),
        (ObjectKey("", "ConfigMap", "p", "a\n"), errors.InvalidError),
        (ObjectKey("", "ConfigMap", "p?x=", "a"), errors.InvalidError),
        (ObjectKey("", "ConfigMap", "", "a"), errors.InvalidError),
        (ObjectKey("", "Namespace", "p", "a"), errors.InvalidError),
        (ObjectKey("", "Eviction", "p", "a"), errors.KindMissingError),
        (ObjectKey("", "Hostile", "p", "a"), errors.KindMissingError),
    ],
)
@in_virtual_time
async def test_names_from_git_never_become_another_path(key: ObjectKey, error: type[errors.KubeError]) -> None:
    script = Script()
    with pytest.raises(error) as caught:
        await cluster_of(script).get("v1", key)
    assert caught.value.permanent
    assert script.requests == []


@pytest.mark.parametrize("api_version", ["v1/../x", "a/b/c", "", "..", "apps/v1?x=1", "/v1"])
@in_virtual_time
async def test_an_api_version_that_is_none_is_a_missing_kind(api_version: str) -> None:
    script = Script()
    with pytest.raises(errors.KindMissingError):
        await cluster_of(script).get(api_version, KEY)
    assert script.requests == []


@in_virtual_time
async def test_what_json_cannot_say_is_refused_before_it_is_sent() -> None:
    script = Script()
    manifest = {**OBJECT, "data": {"k": 2**70}}
    with pytest.raises(errors.InvalidError):
        await cluster_of(script).apply(manifest, uid=None, force=False, dry_run=False)
    assert script.requests == []


# ---- discovery ---------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_missing_kind_is_looked_up_again_but_seldom() -> None:
    script, now_s = Script(json_response(OBJECT)), 0.0
    script.core = {"kind": "APIResourceList", "resources": []}
    cluster = KubeCluster("c", script, now_s=lambda: now_s)
    for now_s in (0.0, 1.0, DISCOVERY_INTERVAL_S - 1):  # noqa: B007 - read by the lambda
        with pytest.raises(errors.KindMissingError):
            await cluster.get("v1", KEY)
    assert script.discovered == 1
    script.core = CORE
    now_s = DISCOVERY_INTERVAL_S
    assert await cluster.get("v1", KEY) == OBJECT
    assert script.discovered == 2
    assert (await cluster.resource("v1", "ConfigMap")).plural == "configmaps"
    assert script.discovered == 2


@in_virtual_time
async def test_a_group_that_is_not_served_is_a_missing_kind_and_a_failed_lookup_is_not() -> None:
    script = Script(Response(404, {}, b"404 page not found\n"), refused(503, "ServiceUnavailable"))
    cluster = cluster_of(script)
    with pytest.raises(errors.KindMissingError):
        await cluster.resource("example.com/v1", "Thing")
    with pytest.raises(errors.ServerError):
        await cluster.resource("example.org/v1", "Thing")
    assert [request.path for request in script.requests] == ["/apis/example.com/v1", "/apis/example.org/v1"]


# ---- lists -------------------------------------------------------------------------------------------------------


def page(names: list[str], version: str = "9", **metadata: Any) -> Response:
    items = [
        {"metadata": {"name": name, "namespace": "p", "uid": f"u-{name}", "resourceVersion": "3"}} for name in names
    ]
    return json_response(
        {"kind": "ConfigMapList", "metadata": {"resourceVersion": version, **metadata}, "items": items}
    )


async def listed(script: Script) -> list[str]:
    names: list[str] = []
    async with aclosing(cluster_of(script).list_pages("v1", "ConfigMap", "app=x", limit=2)) as pages:
        async for each in pages:
            names += [manifest["metadata"]["name"] for manifest in each.objects]
            assert all(manifest["apiVersion"] == "v1" for manifest in each.objects)
            assert all(manifest["kind"] == "ConfigMap" for manifest in each.objects)
            assert each.resource_version == "9"
    return names


@in_virtual_time
async def test_pages_are_followed_to_the_end() -> None:
    script = Script(page(["a", "b"], remainingItemCount=1, **{"continue": "t1"}), page(["c"]))
    assert await listed(script) == ["a", "b", "c"]
    assert script.requests[0].query == (("limit", "2"), ("labelSelector", "app=x"))
    assert script.requests[1].query == (("limit", "2"), ("labelSelector", "app=x"), ("continue", "t1"))
    assert await listed(Script(page([]))) == []
    assert (
        await listed(Script(json_response({"kind": "XList", "metadata": {"resourceVersion": "9"}, "items": None})))
        == []
    )


FIRST = page(["a", "b"], **{"continue": "t1"})


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([FIRST, refused(410, "Expired")], errors.GoneError),
        ([FIRST, page(["c"], version="10")], errors.GoneError),
        ([FIRST, page(["c"], **{"continue": "t1"})], errors.GoneError),
        ([page(["a"], remainingItemCount=3)], errors.GoneError),
        ([FIRST, TransportError("reset", sent=True)], errors.UnreachableError),
        ([FIRST, refused(403, "Forbidden")], errors.ForbiddenError),
        ([Response(200, {}, FIRST.body[:-20])], errors.ServerError),
        ([json_response({"kind": "ConfigMapList", "items": []})], errors.ServerError),
        ([json_response({"kind": "ConfigMapList", "metadata": {"resourceVersion": "9"}})], errors.ServerError),
        (
            [json_response({"kind": "ConfigMapList", "metadata": {"resourceVersion": "9"}, "items": {}})],
            errors.ServerError,
        ),
        (
            [
                json_response(
                    {"kind": "ConfigMapList", "metadata": {"resourceVersion": "9"}, "items": [{"metadata": {}}]}
                )
            ],
            errors.ServerError,
        ),
        ([json_response({"kind": "Status", "status": "Success", "metadata": {}})], errors.ServerError),
        ([Response(200, {}, b"")], errors.ServerError),
    ],
)
@in_virtual_time
async def test_a_list_that_is_not_whole_is_never_returned_as_whole(
    answers: list[Response | TransportError], error: type[errors.KubeError]
) -> None:
    with pytest.raises(error):
        await listed(Script(*answers))


@in_virtual_time
async def test_versions_come_from_metadata_lists_and_from_tables() -> None:
    metadata = {"name": "a", "namespace": "p", "uid": "u1", "resourceVersion": "3"}
    table = {
        "kind": "Table",
        "metadata": {"resourceVersion": "9"},
        "rows": [{"cells": ["a"], "object": {"kind": "PartialObjectMetadata", "metadata": metadata}}],
    }
    partial = {
        "kind": "PartialObjectMetadataList",
        "metadata": {"resourceVersion": "9"},
        "items": [{"metadata": metadata}],
    }
    for answer in (table, partial):
        script = Script(json_response(answer))
        assert await cluster_of(script).list_versions("v1", "ConfigMap", "app=x") == ("9", [(KEY, "u1", "3")])
        assert dict(script.requests[0].headers)["accept"].startswith("application/json;as=PartialObjectMetadataList")
    no_object = {**table, "rows": [{"cells": ["a"]}]}
    with pytest.raises(errors.ServerError):
        await cluster_of(Script(json_response(no_object))).list_versions("v1", "ConfigMap")


# ---- watch -------------------------------------------------------------------------------------------------------


async def watched(script: Script, idle_s: float = 5.0) -> tuple[list[WatchEvent], errors.KubeError | None]:
    events: list[WatchEvent] = []
    try:
        async with aclosing(cluster_of(script).watch("v1", "ConfigMap", "app=x", "7", idle_s=idle_s)) as watch:
            async for event in watch:
                events.append(event)  # noqa: PERF401 - what came before an error matters
    except errors.KubeError as error:
        return events, error
    return events, None


def line(kind: str, value: Any) -> bytes:
    return json.dumps({"type": kind, "object": value}).encode()


@in_virtual_time
async def test_watch_events() -> None:
    bookmark = {"kind": "ConfigMap", "metadata": {"resourceVersion": "12"}}
    script = Script(lines=[line("ADDED", OBJECT), b"", line("BOOKMARK", bookmark), line("DELETED", OBJECT)])
    events, error = await watched(script)
    assert error is None
    assert events == [
        WatchEvent("ADDED", "7", KEY, OBJECT),
        WatchEvent("BOOKMARK", "12"),
        WatchEvent("DELETED", "7", KEY, OBJECT),
    ]
    query = dict(script.requests[0].query)
    assert script.requests[0].path == "/api/v1/configmaps"
    assert (query["watch"], query["allowWatchBookmarks"], query["resourceVersion"]) == ("1", "true", "7")
    assert query["labelSelector"] == "app=x"


GONE = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version: 7 (99)"}


@pytest.mark.parametrize(
    ("script", "count", "error"),
    [
        (Script(refused(410, "Expired")), 0, errors.GoneError),
        (Script(lines=[line("ADDED", OBJECT), line("ERROR", GONE)]), 1, errors.GoneError),
        (Script(refused(403, "Forbidden")), 0, errors.ForbiddenError),
        (Script(lines=[line("ADDED", OBJECT)[:-9]]), 0, errors.ServerError),
        (Script(lines=[line("ADDED", {"metadata": {"name": "a", "resourceVersion": "7"}})]), 0, errors.ServerError),
        (Script(lines=[line("ADDED", {"metadata": None})]), 0, errors.ServerError),
        (Script(lines=[line("ERROR", None)]), 0, errors.ServerError),
        (Script(lines=[line("SURPRISE", OBJECT)]), 0, errors.ServerError),
        (Script(lines=[b"[]"]), 0, errors.ServerError),
    ],
)
@in_virtual_time
async def test_a_watch_that_cannot_go_on_says_why(script: Script, count: int, error: type[errors.KubeError]) -> None:
    events, raised = await watched(script)
    assert len(events) == count
    assert type(raised) is error


@in_virtual_time
async def test_a_watch_that_says_nothing_ends_at_its_idle_deadline() -> None:
    script = Script(lines=[line("ADDED", OBJECT)])
    script.silent = True
    events, error = await watched(script, idle_s=100)
    assert len(events) == 1
    assert isinstance(error, errors.UnreachableError)
    assert (error.reason.code, error.outcome) == ("WatchIdle", Outcome.TEMPORARY)


@in_virtual_time
async def test_a_long_line_is_one_event() -> None:
    big = {**OBJECT, "data": {"k": "v" * 3_000_000}}
    events, error = await watched(Script(lines=[line("ADDED", big)]))
    assert error is None
    assert events[0].object == big


@in_virtual_time
async def test_server_version_and_close() -> None:
    script = Script(json_response({"gitVersion": "v1.36.2"}))
    cluster = cluster_of(script)
    assert await cluster.server_version() == "v1.36.2"
    await cluster.close()
    await cluster.close()
    assert script.closed
