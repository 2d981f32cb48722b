"""A controller's client on a real API server: reads from a cache, writes in the background and in order.

The models of the controllers call their cluster and have the answer at once. A real API server takes its time, so they
are given what real controllers have, too: a cache that watches feed. What they write is laid over the cached object at
once and sent afterwards, one request at a time; the server's answer then takes its place.

    cache = ObjectCache(on_change)                     # of one cluster, fed by offer() and gone()
    outbox = Outbox(transport, cache)                  # sends what the controllers write: outbox.run() is a task
    access = RemoteAccess(cache, outbox, "flink-kubernetes-operator", lifecycle_states)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from reconciler.shell.live import is_older
from reconciler.shell.ports import Clock
from reconciler.shell.transport import Request, Response, Transport
from reconciler.sim.events import event_document
from reconciler.sim.machine import Ref
from reconciler.sim.requests import MERGE, merge_patch

Object = dict[str, Any]
#: (object, before, after): None for absent.
OnChange = Callable[[Ref, Object | None, Object | None], None]

#: The kinds that a model looks after: where they are served, and by which name in a path.
PATHS = {
    "FlinkDeployment": ("flink.apache.org/v1beta1", "flinkdeployments"),
    "FlinkSessionJob": ("flink.apache.org/v1beta1", "flinksessionjobs"),
    "FlinkStateSnapshot": ("flink.apache.org/v1beta1", "flinkstatesnapshots"),
    "Deployment": ("apps/v1", "deployments"),
    "StatefulSet": ("apps/v1", "statefulsets"),
    "Job": ("batch/v1", "jobs"),
}
MESSAGE_LENGTH_MAX = 400
#: Kubernetes Events that a controller knows it has written.
EVENTS_MAX = 10_000


class RefusedWriteError(Exception):
    """The API server refused what a model wrote: the model is wrong, and the message says about what."""


def path_of(ref: Ref) -> str:
    """The path of an object that a model looks after."""
    api_version, plural = PATHS[ref.kind]
    return f"/apis/{api_version}/namespaces/{ref.namespace}/{plural}/{ref.name}"


def merge_request(path: str, patch: Mapping[str, Any], manager: str) -> Request:
    """A merge patch in the name of a field manager."""
    headers = (("accept", "application/json"), ("content-type", MERGE))
    return Request("PATCH", path, (("fieldManager", manager),), headers, orjson.dumps(patch))


class ObjectCache:
    """The objects of the kinds that the controllers of one cluster look after, as far as they are known."""

    def __init__(self, on_change: OnChange) -> None:
        self._on_change = on_change
        self._objects: dict[Ref, Object] = {}
        self._unsent: dict[Ref, deque[Mapping[str, Any]]] = {}
        self._newest_end: dict[str, str] = {}  # by kind: the version of the newest deletion that a watch has told

    def get(self, ref: Ref) -> Object | None:
        """The object as it will be once everything is sent."""
        value = self._objects.get(ref)
        if value is not None:
            for patch in self._unsent.get(ref, ()):
                value = merge_patch(value, patch)
        return value

    def refs(self, kind: str) -> list[Ref]:
        """All objects of a kind, in order."""
        return sorted(ref for ref in self._objects if ref.kind == kind)

    def offer(self, ref: Ref, value: Object) -> None:
        """Take in an object as the server sent it, if it is news. The answer to a write may come after the watch has
        told of the object's end: what is not known and older than an end is dead."""
        before = self._objects.get(ref)
        known = self._newest_end.get(ref.kind, "0") if before is None else _version(before)
        if is_older(known, _version(value)):
            self._objects[ref] = value
            self._on_change(ref, before, value)

    def gone(self, ref: Ref, version: str) -> None:
        """The object was deleted at `version`."""
        if is_older(self._newest_end.get(ref.kind, "0"), version):
            self._newest_end[ref.kind] = version
        before = self._objects.get(ref)
        if before is not None and not is_older(version, _version(before)):
            del self._objects[ref]
            self._on_change(ref, before, None)

    def to_be_sent(self, ref: Ref, patch: Mapping[str, Any]) -> None:
        """Lay a patch over the object until it is `sent`."""
        self._unsent.setdefault(ref, deque()).append(patch)

    def sent(self, ref: Ref) -> None:
        """The oldest patch of the object has been answered."""
        patches = self._unsent[ref]
        patches.popleft()
        if not patches:
            del self._unsent[ref]


def _version(value: Object) -> str:
    return str(value["metadata"]["resourceVersion"])


@dataclass(slots=True)
class Outbox:
    """What the controllers of one cluster have written and the server has not answered yet."""

    transport: Transport
    cache: ObjectCache
    _writes: deque[tuple[Ref | None, Request]] = field(default_factory=deque)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def empty(self) -> bool:
        """True if everything is answered."""
        return not self._writes

    def patch(self, ref: Ref, path: str, patch: Mapping[str, Any], manager: str) -> None:
        """Send a merge patch of an object that the cache knows."""
        self.cache.to_be_sent(ref, patch)
        self._send(ref, merge_request(path, patch, manager))

    def send(self, request: Request) -> None:
        """Send anything else; its answer is of no interest."""
        self._send(None, request)

    def _send(self, ref: Ref | None, request: Request) -> None:
        self._writes.append((ref, request))
        self._wake.set()

    async def run(self) -> None:
        """Send, one after the other, until cancelled. Raises RefusedWriteError and TransportError."""
        while True:
            while self._writes:
                ref, request = self._writes[0]
                answer = await self.transport.request(request)
                _refuse_refusal(request, answer)
                self._writes.popleft()
                if ref is not None:
                    self.cache.sent(ref)
                    if answer.status < 300:
                        self.cache.offer(ref, orjson.loads(answer.body))
            self._wake.clear()
            await self._wake.wait()


def _refuse_refusal(request: Request, answer: Response) -> None:
    """An object that is gone meanwhile needs no status, and a namespace that is going takes no events."""
    unneeded = (403, 404, 409) if request.path.endswith("/events") else (404,)
    if answer.status >= 300 and answer.status not in unneeded:
        said = answer.body.decode("utf-8", "replace")[:MESSAGE_LENGTH_MAX]
        raise RefusedWriteError(f"{request.method} {request.path} was answered {answer.status}: {said}")


class RemoteAccess:
    """sim.work.Access of one controller. `lifecycle_states` are those that the cluster's CRD of a kind admits."""

    def __init__(
        self,
        cache: ObjectCache,
        outbox: Outbox,
        manager: str,
        clock: Clock,
        lifecycle_states: Mapping[str, frozenset[str]],
    ) -> None:
        self._cache = cache
        self._outbox = outbox
        self._manager = manager
        self._clock = clock
        self._lifecycle_states = lifecycle_states
        self._events: dict[str, int] = {}

    def get(self, ref: Ref) -> Object | None:
        return self._cache.get(ref)

    def objects(self, kind: str) -> list[Object]:
        return [value for ref in self._cache.refs(kind) if (value := self._cache.get(ref)) is not None]

    def patch_status(self, ref: Ref, status: Mapping[str, Any]) -> None:
        self._outbox.patch(ref, f"{path_of(ref)}/status", {"status": dict(status)}, self._manager)

    def set_finalizers(self, ref: Ref, finalizers: list[str]) -> None:
        self._outbox.patch(ref, path_of(ref), {"metadata": {"finalizers": finalizers or None}}, self._manager)

    def event(self, ref: Ref, value: Mapping[str, Any], kind: str, reason: str, message: str) -> None:
        name, document = event_document(ref, value, (kind, reason, message), self._manager, self._clock.now().wall)
        path = f"/api/v1/namespaces/{ref.namespace}/events"
        if len(self._events) >= EVENTS_MAX:
            self._events.clear()  # what is said again after that long is taken for said
        self._events[name] = count = self._events.get(name, 0) + 1
        if count > 1:
            again = {"count": count, "lastTimestamp": document["lastTimestamp"]}
            self._outbox.send(merge_request(f"{path}/{name}", again, self._manager))
            return
        headers = (("accept", "application/json"), ("content-type", "application/json"))
        query = (("fieldManager", self._manager),)
        self._outbox.send(Request("POST", path, query, headers, orjson.dumps(document)))

    def allows(self, kind: str, field: str, value: str) -> bool:
        states = self._lifecycle_states.get(kind) if field == "lifecycleState" else None
        return states is None or value in states
