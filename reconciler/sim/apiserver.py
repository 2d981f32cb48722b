"""The simulated Kubernetes API server: one engine, called directly or through `http.py`.

It answers as a real kube-apiserver does, for what `tests/contract/` covers; everything else is 501, never a guess. Time
comes from `now` (epoch seconds) and everything random from `seed`, so a run repeats exactly. `snapshot` and `restore`
copy a whole cluster in microseconds, for crash points.

    server = SimApiServer(now=clock.now, seed="eu-west-1a")
    transport = server.transport()                       # a Transport: the shipped Kubernetes adapter works over it
    server.observe(operator.on_change)                   # simulated controllers are told about every change, and use
    server.apply_status(key, {"lifecycleState": "STABLE"})     # calls that count as no request
    server.log                                           # every write, for the simulator's invariants

The namespace controller's part, watch bookmarks and timeouts happen in `tick()`; the latter two also when the timer of
a waiting reader fires.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson

from reconciler.shell.transport import Request, Response, Stream, TransportError
from reconciler.sim import deletions
from reconciler.sim.admission import Webhook
from reconciler.sim.problems import ApiError
from reconciler.sim.reads import Reads
from reconciler.sim.requests import parse_call
from reconciler.sim.schema import Catalog, load_catalog
from reconciler.sim.store import Event, Key, Snapshot, Store, Stored, WriteEntry
from reconciler.sim.verbs import Verbs
from reconciler.sim.versions import Object
from reconciler.sim.watch import Watch
from reconciler.sim.writes import Options, Target, Writer

OPERATOR = "flink-kubernetes-operator"
FIRST_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
#: Where a clock is not given, time stands still here: 2026-01-01T00:00:00Z.
EPOCH_S = 1767225600.0

Observer = Callable[[Key, Event], None]


@dataclass(frozen=True, slots=True)
class ServerSnapshot:
    """An opaque copy of a server's objects, history and log."""

    store: Snapshot
    catalog: Catalog
    seed: str
    users: Mapping[str, str] | None
    bookmark_interval_s: float


class SimApiServer:
    """One simulated cluster. Not safe for threads; every method but the transport's is synchronous."""

    def __init__(
        self,
        *,
        now: Callable[[], float] = lambda: EPOCH_S,
        seed: str = "simulated",
        catalog: Catalog | None = None,
        users: Mapping[str, str] | None = None,
        watch_clock: Callable[[], float] | None = None,
        bookmark_interval_s: float = 60.0,
    ) -> None:
        """`users` maps bearer tokens to user names; without it every request is an administrator's. `watch_clock` is
        what bookmarks and `timeoutSeconds` go by (by default the loop's time)."""
        self._setup(Store(), catalog or load_catalog(), now, seed, users, watch_clock, bookmark_interval_s)
        for name in FIRST_NAMESPACES:
            self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, manager="kube-apiserver")
        self._store.log.clear()

    def _setup(
        self,
        store: Store,
        catalog: Catalog,
        now: Callable[[], float],
        seed: str,
        users: Mapping[str, str] | None,
        watch_clock: Callable[[], float] | None,
        bookmark_interval_s: float,
    ) -> None:
        self.catalog = catalog
        self.now = now
        self.users = users
        #: Whom every write is shown to; may be changed at any time.
        self.webhooks: list[Webhook] = []
        self._seed = seed
        self._store = store
        self._observers: list[Observer] = []
        self._kinds = {resource.storage: resource for resource in reversed(catalog.resources)}
        self._writer = Writer(store, catalog, now, seed, self.webhooks)
        clock = watch_clock or (lambda: asyncio.get_running_loop().time())
        self._bookmark_interval_s = bookmark_interval_s
        self._reads = Reads(store, catalog, now, clock, bookmark_interval_s)
        self._verbs = Verbs(self, store, self._writer, self._reads)
        store.listeners.append(self._changed)

    # ------------------------------------------------------------------------------------------------- requests

    def handle(self, request: Request) -> Response | Stream:
        """Answer one request. A watch is answered with a Stream."""
        try:
            return self._verbs.dispatch(parse_call(request, self.users))
        except ApiError as error:
            return error_response(error)

    def transport(self, token: str | None = None) -> DirectTransport:
        """A Transport that calls the engine; `token` is sent as bearer token where a request has none."""
        return DirectTransport(self, token)

    # ------------------------------------------------------------------------------------ for simulated controllers

    def observe(self, observer: Observer) -> None:
        """Be told about every change, right after it is stored and queued for watches."""
        self._observers.append(observer)

    def objects(self, kind: str, group: str = "flink.apache.org") -> list[Object]:
        """All objects of a kind, by namespace and name. They must not be modified."""
        shelf = self._store.shelf(self.catalog.kind(group, kind).storage)
        return [stored.value for _, stored in sorted(shelf.objects.items())]

    def read(self, key: Key) -> Object | None:
        """One object, None when it is absent. It must not be modified."""
        stored = self._writer.find(self._target(key))
        return None if stored is None else stored.value

    def create(self, value: Object, *, manager: str = OPERATOR, user: str = "") -> Object:
        """Create an object as POST does. ApiError when it is refused."""
        group, _, _ = value["apiVersion"].rpartition("/")
        metadata = value["metadata"]
        key = Key(group, value["kind"], metadata.get("namespace", ""), metadata.get("name", ""))
        target = self._target(key)
        stored = self._writer.create(target, value, Options(manager))
        self.record(user, manager, "create", target, None, stored, orjson.dumps(value))
        return stored.value

    def apply_status(self, key: Key, status: Object, *, manager: str = OPERATOR) -> Object:
        """Merge into an object's status, exactly as a merge patch of its status subresource does."""
        return self.merge(key, {"status": status}, manager=manager, subresource="status")

    def merge(self, key: Key, patch: Object, *, manager: str = OPERATOR, subresource: str = "") -> Object:
        """A merge patch. ApiError when the object is absent or the result refused."""
        target = self._target(key, subresource)
        live = self._writer.get(target)
        stored = self._verbs.merge(target, live, patch, Options(manager))
        self.record("", manager, "patch", target, live, stored, orjson.dumps(patch))
        return stored.value

    def delete(self, key: Key, *, manager: str = OPERATOR, policy: str = "") -> None:
        """Delete an object; with finalizers it only begins to go. ApiError when it is absent."""
        target = self._target(key)
        live = self._writer.get(target)
        deletions.delete(self._writer, target, Options(manager), preconditions={}, policy=policy)
        self.record("", manager, "delete", target, live, None, b"")

    def _target(self, key: Key, subresource: str = "") -> Target:
        return Target(self.catalog.kind(key.group, key.kind), key.namespace, key.name, subresource)

    def _changed(self, storage: str, event: Event) -> None:
        self._reads.changed(storage, event)
        resource = self._kinds[storage]
        key = Key(resource.group, resource.kind, event.namespace, event.name)
        for observer in list(self._observers):
            observer(key, event)

    # ---------------------------------------------------------------------------------------------- time and faults

    def tick(self) -> None:
        """What happens by itself: namespaces that are being deleted are emptied, due bookmarks sent, watches ended."""
        deletions.finish_namespaces(self._writer)
        self._reads.tick()

    def compact(self) -> None:
        """Forget the history: resourceVersions and continue tokens from before now answer 410, open watches go on."""
        self._store.compact()

    def end_watches(self) -> None:
        """End all open watches, as an API server does that restarts."""
        self._reads.end_watches()

    def pending_events(self) -> int:
        """Lines of open watches that are queued but not yet read (over HTTP: not yet written to the socket)."""
        return self._reads.pending_events()

    def open_watches(self) -> int:
        """How many watches are open."""
        return len(self._reads.watches)

    def set_catalog(self, catalog: Catalog) -> None:
        """Serve other kinds or types from now on, as when CRDs are replaced. Stored objects stay."""
        self.catalog = catalog
        self._kinds |= {resource.storage: resource for resource in reversed(catalog.resources)}
        self._writer.catalog = catalog
        self._reads.catalog = catalog

    # ---------------------------------------------------------------------------------------------- log, snapshots

    @property
    def log(self) -> list[WriteEntry]:
        """All writes, the refused ones included, oldest first. Only ever appended to."""
        return self._store.log

    @property
    def requests(self) -> dict[str, int]:
        """How many requests came, by verb: get, list, watch, create, update, patch, delete; also "refused"."""
        return self._store.requests

    @property
    def revision(self) -> int:
        """The newest resourceVersion."""
        return self._store.revision

    def record(
        self,
        user: str,
        manager: str,
        verb: str,
        target: Target,
        before: Stored | None,
        after: Stored | None,
        body: bytes,
        *,
        dry_run: bool = False,
        code: int = 200,
    ) -> None:
        """Append to the write log. `after` is None when the object is gone or the write was refused."""
        self._verbs.record(user, manager, verb, target, before, after, body, dry_run=dry_run, code=code)

    def snapshot(self) -> ServerSnapshot:
        """A copy to restore from; open watches, observers and webhooks are not part of it."""
        return ServerSnapshot(self._store.snapshot(), self.catalog, self._seed, self.users, self._bookmark_interval_s)

    @classmethod
    def restore(
        cls,
        saved: ServerSnapshot,
        *,
        now: Callable[[], float],
        watch_clock: Callable[[], float] | None = None,
    ) -> SimApiServer:
        """A server as it was at the snapshot, which may be restored any number of times."""
        server = cls.__new__(cls)
        store = Store.restore(saved.store)
        server._setup(store, saved.catalog, now, saved.seed, saved.users, watch_clock, saved.bookmark_interval_s)
        return server


def error_response(error: ApiError) -> Response:
    """The answer that carries a refusal."""
    headers = {"content-type": "application/json"}
    retry_after = error.body.get("details", {}).get("retryAfterSeconds")
    if retry_after:
        headers["retry-after"] = str(retry_after)
    return Response(error.code, headers, orjson.dumps(error.body))


class DirectTransport:
    """The Transport protocol over `SimApiServer.handle`: no sockets, no waiting, no time."""

    def __init__(self, server: SimApiServer, token: str | None) -> None:
        self._server = server
        self._token = token
        self._closed = False
        self._open: list[Watch] = []

    def _authorized(self, request: Request) -> Request:
        if self._closed:
            raise TransportError("the transport is closed", sent=False)
        if self._token is None or any(name.lower() == "authorization" for name, _ in request.headers):
            return request
        headers = (*request.headers, ("Authorization", f"Bearer {self._token}"))
        return Request(request.method, request.path, request.query, headers, request.body, request.timeout_s)

    async def request(self, request: Request) -> Response:
        """One exchange. A watch asked for in this way is read until the server ends it."""
        answer = self._server.handle(self._authorized(request))
        if isinstance(answer, Response):
            return answer
        lines = [line async for line in answer.lines]
        return Response(answer.status, answer.headers, b"".join(line + b"\n" for line in lines))

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[Stream]:
        """One exchange, read line by line."""
        answer = self._server.handle(self._authorized(request))
        if isinstance(answer, Response):
            yield Stream(answer.status, answer.headers, answer.body, _no_lines())
            return
        watch = answer.lines
        assert isinstance(watch, Watch)
        self._open.append(watch)
        try:
            yield answer
        finally:
            self._open.remove(watch)
            await watch.aclose()

    async def close(self) -> None:
        """End all open watches."""
        self._closed = True
        for watch in list(self._open):
            await watch.aclose()


async def _no_lines() -> AsyncIterator[bytes]:
    nothing: tuple[bytes, ...] = ()
    for line in nothing:
        yield line


__all__ = ["ApiError", "DirectTransport", "ServerSnapshot", "SimApiServer", "error_response"]
