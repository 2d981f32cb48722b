"""A thin, synchronous face on a Transport, so that a contract test reads like the requests it makes.

A test gets an `Api` (see conftest.py) bound to one backend and one name space of names: the real API server, the
simulated one over HTTP, or the simulated one called directly. Nothing here interprets answers; `expect` fails with
the whole answer.

Example: `api.apply("configmaps", "a", {"data": {"k": "v"}}).expect(201)["metadata"]["uid"]`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from reconciler.shell.transport import Request, Stream, Transport
from reconciler.sim.admission import Fault, Respond, Webhook

T = TypeVar("T")
Object = dict[str, Any]

GROUPS = {
    "configmaps": "/api/v1",
    "secrets": "/api/v1",
    "services": "/api/v1",
    "persistentvolumeclaims": "/api/v1",
    "serviceaccounts": "/api/v1",
    "pods": "/api/v1",
    "deployments": "/apis/apps/v1",
    "statefulsets": "/apis/apps/v1",
    "jobs": "/apis/batch/v1",
    "networkpolicies": "/apis/networking.k8s.io/v1",
    "rolebindings": "/apis/rbac.authorization.k8s.io/v1",
    "flinkdeployments": "/apis/flink.apache.org/v1beta1",
    "flinksessionjobs": "/apis/flink.apache.org/v1beta1",
    "specimens": "/apis/contract.reconciler.dev/v1",
}
KINDS = {
    "configmaps": "ConfigMap",
    "secrets": "Secret",
    "services": "Service",
    "persistentvolumeclaims": "PersistentVolumeClaim",
    "serviceaccounts": "ServiceAccount",
    "pods": "Pod",
    "deployments": "Deployment",
    "statefulsets": "StatefulSet",
    "jobs": "Job",
    "networkpolicies": "NetworkPolicy",
    "rolebindings": "RoleBinding",
    "flinkdeployments": "FlinkDeployment",
    "flinksessionjobs": "FlinkSessionJob",
    "specimens": "Specimen",
}
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a parsed body."""

    status: int
    headers: Mapping[str, str]
    body: Any

    def expect(self, status: int) -> Any:
        """The body, if the status is this one."""
        assert self.status == status, f"expected {status}, got {self.status}: {json.dumps(self.body)[:2000]}"
        return self.body

    def expect_error(self, status: int, reason: str | None) -> Any:
        """The Status object of a refusal with this code and reason."""
        body = self.expect(status)
        assert body["kind"] == "Status", body
        assert body["apiVersion"] == "v1"
        assert body["status"] == "Failure"
        assert body["code"] == status
        assert body.get("reason") == reason, body
        assert body["metadata"] == {}
        return body


@dataclass(slots=True)
class Watch:
    """An open watch; events are parsed lines."""

    loop: asyncio.AbstractEventLoop
    stream: Stream

    def next(self) -> Object:
        """The next event that is not a bookmark."""
        while True:
            event = self.next_of_any_type()
            if event["type"] != "BOOKMARK":
                return event

    def next_of_any_type(self) -> Object:
        """The next event, bookmarks included; the end of the stream is an AssertionError."""
        line = self.next_line()
        assert line is not None, "the watch ended"
        event: Object = json.loads(line)
        return event

    def next_line(self) -> bytes | None:
        """The next line, or None at the end."""

        async def step() -> bytes | None:
            async with asyncio.timeout(60):
                return await anext(self.stream.lines, None)

        return self.loop.run_until_complete(step())

    def rest(self) -> list[Object]:
        """All events until the server ends the watch."""
        events: list[Object] = []
        while (line := self.next_line()) is not None:
            events.append(json.loads(line))
        return events


@dataclass(slots=True)
class Api:
    """Requests of one test."""

    backend: str
    transport: Transport
    loop: asyncio.AbstractEventLoop
    namespace: str
    spare_namespace: str = ""
    admission: Callable[[Webhook], AbstractContextManager[None]] | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run to the end on the backend's loop."""
        return self.loop.run_until_complete(coroutine)

    def path(self, plural: str, name: str = "", *, sub: str = "", namespace: str | None = "") -> str:
        """The path of a collection, an object or a subresource; namespace None for all namespaces."""
        root = GROUPS[plural]
        scope = "" if namespace is None else f"/namespaces/{namespace or self.namespace}"
        return f"{root}{scope}/{plural}" + (f"/{name}" if name else "") + (f"/{sub}" if sub else "")

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = JSON,
        accept: str = JSON,
        query: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request; bytes are sent as they are, anything else as JSON."""
        headers = [("Accept", accept), ("User-Agent", "contract-tests/1.0 (tests)")]
        content = b""
        if body is not None:
            headers.append(("Content-Type", content_type))
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = Request(method, path, tuple((query or {}).items()), tuple(headers), content)
        response = self.run(self.transport.request(request))
        # Some refusals are plain text.
        is_json = response.body.startswith((b"{", b"["))
        return Answer(
            response.status, response.headers, json.loads(response.body) if is_json else response.body.decode()
        )

    def whole(self, plural: str, name: str, body: Object, namespace: str = "") -> Object:
        """A body with apiVersion, kind, name and namespace filled in."""
        version = GROUPS[plural].removeprefix("/apis/").removeprefix("/api/")
        metadata = {"name": name, "namespace": namespace or self.namespace, **body.get("metadata", {})}
        return {"apiVersion": version, "kind": KINDS[plural], **body, "metadata": metadata}

    def create(self, plural: str, name: str, body: Object, **query: str) -> Answer:
        """POST."""
        return self.send("POST", self.path(plural), self.whole(plural, name, body), query=query)

    def get(self, plural: str, name: str, sub: str = "") -> Answer:
        """GET one object."""
        return self.send("GET", self.path(plural, name, sub=sub))

    def list(self, plural: str, *, accept: str = JSON, namespace: str | None = "", **query: str) -> Answer:
        """GET a collection."""
        return self.send("GET", self.path(plural, namespace=namespace), accept=accept, query=query)

    def put(self, plural: str, name: str, body: Object, sub: str = "", **query: str) -> Answer:
        """PUT the whole object."""
        return self.send("PUT", self.path(plural, name, sub=sub), body, query=query)

    def apply(
        self, plural: str, name: str, body: Object, *, manager: str = "reconciler", sub: str = "", **query: str
    ) -> Answer:
        """Server-side apply."""
        query = {"fieldManager": manager, **query}
        whole = self.whole(plural, name, body)
        return self.send("PATCH", self.path(plural, name, sub=sub), whole, content_type=APPLY, query=query)

    def merge(
        self, plural: str, name: str, body: Object, *, manager: str = "kubectl-edit", sub: str = "", **query: str
    ) -> Answer:
        """JSON merge patch."""
        query = {"fieldManager": manager, **query}
        return self.send("PATCH", self.path(plural, name, sub=sub), body, content_type=MERGE, query=query)

    def patch(
        self, plural: str, name: str, operations: Any, *, manager: str = "kubectl-patch", sub: str = "", **query: str
    ) -> Answer:
        """JSON patch."""
        query = {"fieldManager": manager, **query}
        return self.send("PATCH", self.path(plural, name, sub=sub), operations, content_type=JSON_PATCH, query=query)

    def delete(self, plural: str, name: str, options: Object | None = None, **query: str) -> Answer:
        """DELETE with options in the body."""
        return self.send("DELETE", self.path(plural, name), options, query=query)

    def webhook(self, name: str, respond: Respond | Fault, **settings: Any) -> AbstractContextManager[None]:
        """A webhook in force for this test's namespace; those of one test are called in the order of their names."""
        assert self.admission is not None
        whole = f"{name}.{self.namespace}.admission.test"
        return self.admission(Webhook(whole, respond, namespace=self.namespace, **settings))

    @contextmanager
    def watch(self, plural: str, *, namespace: str | None = "", accept: str = JSON, **query: str) -> Iterator[Watch]:
        """Open a watch that answered 200."""
        path = self.path(plural, namespace=namespace)
        request = Request("GET", path, (("watch", "true"), *query.items()), (("Accept", accept),))
        context = self.transport.stream(request)
        stream = self.run(context.__aenter__())
        try:
            assert stream.status == 200, stream.body
            yield Watch(self.loop, stream)
        finally:
            self.run(context.__aexit__(None, None, None))


def managers(body: Object) -> list[tuple[str, str, str]]:
    """The managers of an object as (manager, operation, subresource), in the server's order."""
    entries = body["metadata"].get("managedFields", [])
    return [(entry["manager"], entry["operation"], entry.get("subresource", "")) for entry in entries]


def owned(body: Object, manager: str, operation: str = "Apply", subresource: str = "") -> Any:
    """The fieldsV1 of one manager, None where it has no entry."""
    for entry in body["metadata"].get("managedFields", []):
        if (entry["manager"], entry["operation"], entry.get("subresource", "")) == (manager, operation, subresource):
            return entry["fieldsV1"]
    return None


def stable(body: Object) -> Object:
    """An object without what differs from run to run, nor managedFields (which have tests of their own)."""
    changing = ("uid", "resourceVersion", "creationTimestamp", "managedFields")
    metadata = {key: value for key, value in body["metadata"].items() if key not in changing}
    return {**body, "metadata": metadata}
