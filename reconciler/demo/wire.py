"""The wire to one real API server: what has been asked, written and not yet heard of by those who watch.

The policy clock may go on only when nothing moves, and a real API server does not say what it has still to send. But
everything that is written on the demo's control planes is written through here, by the daemon, by the operator's model
and by the hands of a step, and the answer to each write tells the version that a watch of that kind has to reach. So a
wire is still when every request is answered and every open watch has told its reader of every write it is about.

The wire also keeps the record of what the daemon changed, by the server's own answers.

    wire = Wire(now_wall=lambda: clock.now().wall)
    KubeCluster(name, wire.daemon(transport))          # what is written here is the daemon's
    KubeCluster(name, wire.other(transport))
    wire.still, wire.changes
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import orjson

from reconciler.demo.cluster import Change
from reconciler.shell.transport import Request, Response, Stream, Transport
from reconciler.sim.requests import Address, parse_path
from reconciler.sim.selectors import Match, parse_labels

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
#: Requests that ask something and only look like writes.
QUESTIONS = frozenset({"authentication.k8s.io", "authorization.k8s.io"})


class Collection(NamedTuple):
    """All objects of a kind, as a watch follows them."""

    group: str
    version: str
    plural: str

    @classmethod
    def of(cls, address: Address) -> Collection:
        return cls(address.group, address.version, address.plural)


@dataclass(slots=True)
class Known:
    """The newest that the wire knows of one object."""

    version: int
    labels: Mapping[str, str]


@dataclass(slots=True)
class OpenWatch:
    """One watch: how far its reader has got, and how far it has to get. An end of an object is told by the answer to
    the write that caused it and by the watch, in either order; what one of them has told waits for the other here."""

    collection: Collection
    matches: Match
    reached: int
    owed: int = 0
    ends_owed: set[str] = field(default_factory=set)
    ends_seen: set[str] = field(default_factory=set)

    @property
    def still(self) -> bool:
        """True if the reader has dealt with everything that concerns it."""
        return self.reached >= self.owed and not self.ends_owed

    def owes_end(self, uid: str) -> None:
        """The object is gone."""
        if uid in self.ends_seen:
            self.ends_seen.discard(uid)
        else:
            self.ends_owed.add(uid)

    def saw_end(self, uid: str) -> None:
        """The reader has been told so."""
        if uid in self.ends_owed:
            self.ends_owed.discard(uid)
        else:
            self.ends_seen.add(uid)


class Wire:
    """All exchanges with one API server. `now_wall` is the policy clock's."""

    def __init__(self, now_wall: Callable[[], float]) -> None:
        self.changes: list[Change] = []
        """What the daemon has changed, in order: by the server's answers."""
        self._now_wall = now_wall
        self._requests = 0
        self._known: dict[Collection, dict[str, Known]] = {}
        self._watches: dict[int, OpenWatch] = {}
        self._opened = 0

    @property
    def still(self) -> bool:
        """True if every request is answered and every watch has brought what it was to bring."""
        return not self._requests and all(watch.still for watch in self._watches.values())

    def daemon(self, inner: Transport) -> Transport:
        """A transport of the daemon's."""
        return WiredTransport(inner, self, self.changes)

    def other(self, inner: Transport) -> Transport:
        """A transport of anybody else's."""
        return WiredTransport(inner, self, None)

    # ---- requests ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Count a request while it is on its way."""
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    def answered(self, request: Request, response: Response, changes: list[Change] | None) -> None:
        """Take in the answer to a write; `changes` is where to record what it changed."""
        address = parse_path(request.path)
        if address is None or address.group in QUESTIONS or ("dryRun", "All") in request.query:
            return
        if not 200 <= response.status < 300:
            return
        answer = orjson.loads(response.body)
        collection = Collection.of(address)
        if answer.get("kind") == "Status":
            uid = str((answer.get("details") or {}).get("uid", ""))
            labels = self._labels(collection, uid)
            self._ended(collection, uid)
            changed = True
        else:
            metadata = answer["metadata"]
            uid, labels = str(metadata["uid"]), metadata.get("labels") or {}
            changed = self._wrote(collection, metadata)
        if changes is not None and changed:
            changes.append(Change(self._now_wall(), labels))

    def _wrote(self, collection: Collection, metadata: Mapping[str, Any]) -> bool:
        """An object is now as its metadata tell. True if that is news."""
        uid, version = str(metadata["uid"]), int(metadata["resourceVersion"])
        objects = self._known.setdefault(collection, {})
        before = objects.get(uid)
        labels = metadata.get("labels") or {}
        if "deletionTimestamp" in metadata and not metadata.get("finalizers"):
            # Nothing held it any more. The answer shows it as it was before that.
            self._ended(collection, uid)
            return True
        if before is not None and version <= before.version:
            return False
        objects[uid] = Known(version, labels)
        for watch in self._watches.values():
            concerned = watch.matches(labels) or (before is not None and watch.matches(before.labels))
            if watch.collection == collection and concerned:
                watch.owed = max(watch.owed, version)
        return True

    def _ended(self, collection: Collection, uid: str) -> None:
        """An object is gone. Nobody says at which version, so its end is waited for by name."""
        labels = self._labels(collection, uid)
        self._known.get(collection, {}).pop(uid, None)
        for watch in self._watches.values():
            if watch.collection == collection and watch.matches(labels):
                watch.owes_end(uid)

    def _labels(self, collection: Collection, uid: str) -> Mapping[str, str]:
        known = self._known.get(collection, {}).get(uid)
        return known.labels if known is not None else {}

    # ---- watches -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def watching(self, request: Request) -> AsyncIterator[OpenWatch]:
        """Count an open watch from now to its end: it owes what was written since the version that it began at."""
        address, query = parse_path(request.path), dict(request.query)
        assert address is not None
        collection, matches = Collection.of(address), parse_labels(query.get("labelSelector", ""))
        watch = OpenWatch(collection, matches, int(query.get("resourceVersion") or 0))
        versions = [one.version for one in self._known.get(collection, {}).values() if matches(one.labels)]
        watch.owed = max(versions, default=0)
        self._opened += 1
        number = self._opened
        self._watches[number] = watch
        try:
            yield watch
        finally:
            del self._watches[number]

    @staticmethod
    def taken_in(watch: OpenWatch, line: bytes) -> None:
        """The reader has dealt with a line."""
        event = orjson.loads(line)
        if event["type"] == "ERROR":
            return
        metadata = event["object"]["metadata"]
        watch.reached = max(watch.reached, int(metadata["resourceVersion"]))
        if event["type"] == "DELETED":
            watch.saw_end(str(metadata["uid"]))


class WiredTransport:
    """A Transport whose exchanges a wire knows of."""

    def __init__(self, inner: Transport, wire: Wire, changes: list[Change] | None) -> None:
        self._inner = inner
        self._wire = wire
        self._changes = changes

    async def request(self, request: Request) -> Response:
        """As Transport.request."""
        async with self._wire.asking():
            response = await self._inner.request(request)
            if request.method in WRITES:
                self._wire.answered(request, response, self._changes)
            return response

    def stream(self, request: Request) -> AbstractAsyncContextManager[Stream]:
        """As Transport.stream."""
        return self._stream(request)

    @asynccontextmanager
    async def _stream(self, request: Request) -> AsyncIterator[Stream]:
        async with self._inner.stream(request) as stream:
            if stream.status != 200:
                yield stream
                return
            async with self._wire.watching(request) as watch, aclosing(self._lines(stream, watch)) as lines:
                yield replace(stream, lines=lines)

    async def _lines(self, stream: Stream, watch: OpenWatch) -> AsyncGenerator[bytes, None]:
        async for line in stream.lines:
            yield line
            self._wire.taken_in(watch, line)

    async def close(self) -> None:
        """As Transport.close."""
        await self._inner.close()
