"""A very small API server behind the Transport protocol, with a hand on everything that can go wrong on the way.

Two kinds, one revision counter, lists in pages, watches with bookmarks; `Faults` loses, doubles, delays and cuts what
it serves. It exists so that the observer's tests can steer single events, which a whole API server does not allow.

    api = SmallApi()
    api.put("a", {"k": "1"})
    cluster = KubeCluster("small", api)
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from reconciler.core.model import Manifest, ObjectKey
from reconciler.shell.transport import Request, Response, Stream, TransportError

OWNER = "reconciler.dev/owner"
BOOKMARK_S = 60.0
KINDS = {
    "flinkdeployments": ("flink.apache.org/v1beta1", "FlinkDeployment"),
    "flinksessionjobs": ("flink.apache.org/v1beta1", "FlinkSessionJob"),
    "deployments": ("apps/v1", "Deployment"),
    "configmaps": ("v1", "ConfigMap"),
    "services": ("v1", "Service"),
}
PLURALS = {kind: plural for plural, (_, kind) in KINDS.items()}


def failure(code: int, reason: str, message: str, **details: Any) -> Response:
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return Response(code, {}, json.dumps({**body, "details": details}).encode())


@dataclass
class Faults:
    """What goes wrong, drawn from a seed. With `rate` 0 nothing does."""

    random: Random = field(default_factory=lambda: Random(1))
    rate: float = 0.0

    def hit(self, share: float = 1.0) -> bool:
        return self.rate > 0 and self.random.random() < self.rate * share

    def pick(self, *choices: str) -> str:
        return self.random.choice(choices)


@dataclass
class Event:
    revision: int
    type: str
    manifest: Manifest
    before: Manifest | None


class SmallApi:
    """The server and the way to it. `requests` is a line per request; `open_now` and `open_max` count sockets."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.revision = 100
        self.objects: dict[ObjectKey, Manifest] = {}
        self.log: list[Event] = []
        self.requests: list[str] = []
        self.watched_from: list[int] = []
        self.reachable = True
        self.mute_watches = False  # watches stay open and say nothing
        self.refuse: dict[str, Response] = {}  # by "LIST plural", "META plural", "GET plural", "WATCH plural"
        self.scripted: list[tuple[str, Response]] = []  # (what, answer), each used once
        self.muted = 0  # watches opened before this many were never say anything again
        self.served = set(KINDS)
        self.compacted = 0
        self.open_now = self.open_max = 0
        self.latency_s = 0.01
        self._changed = asyncio.Event()
        self._breaks: list[asyncio.Event] = []
        self._stale: dict[str, Response] = {}

    # ---- the server's side -------------------------------------------------------------------------------------

    def key(self, name: str, kind: str = "FlinkDeployment") -> ObjectKey:
        group = KINDS[PLURALS[kind]][0].rpartition("/")[0]
        return ObjectKey(group, kind, "p", name)

    def put(self, name: str, spec: dict[str, Any], *, kind: str = "FlinkDeployment", labelled: bool = True) -> Manifest:
        """Create or change an object."""
        key = self.key(name, kind)
        before = self.objects.get(key)
        self.revision += 1
        manifest: Manifest = {
            "apiVersion": KINDS[PLURALS[kind]][0],
            "kind": kind,
            "metadata": {
                "name": name,
                "namespace": "p",
                "uid": before["metadata"]["uid"] if before else f"uid-{self.revision}",
                "resourceVersion": str(self.revision),
                "generation": 1 if before is None else before["metadata"]["generation"] + 1,
                "labels": {OWNER: "x"} if labelled else {},
            },
            "spec": spec,
        }
        self.objects[key] = manifest
        self._record(Event(self.revision, "ADDED" if before is None else "MODIFIED", manifest, before))
        return manifest

    def drop(self, name: str, *, kind: str = "FlinkDeployment") -> None:
        before = self.objects.pop(self.key(name, kind))
        self.revision += 1
        last = {**before, "metadata": {**before["metadata"], "resourceVersion": str(self.revision)}}
        self._record(Event(self.revision, "DELETED", last, before))

    def compact(self) -> None:
        """Forget the history, as etcd does every five minutes."""
        self.compacted = self.revision
        self.log.clear()

    def cut_watches(self) -> None:
        """Break every open watch."""
        for each in self._breaks:
            each.set()

    def mute_open_watches(self) -> None:
        """Open watches stay open and say nothing, as on a half-open connection; new ones are well."""
        self.muted = len(self._breaks)

    def count(self, what: str) -> int:
        return sum(line.startswith(what) for line in self.requests)

    def _record(self, event: Event) -> None:
        self.log.append(event)
        self._changed.set()
        self._changed = asyncio.Event()

    # ---- Transport ---------------------------------------------------------------------------------------------

    async def request(self, request: Request) -> Response:
        what = self._what(request)
        self.requests.append(what)
        with self._socket():
            await asyncio.sleep(self.latency_s)
            self._reach(what)
            if self.faults.hit():
                fault = self.faults.pick("lost", "lost", "busy", "failed", "cut", "stale")
                if fault == "lost":
                    raise TransportError(f"{what}: lost", sent=self.faults.random.random() < 0.5)
                if fault == "busy":
                    return Response(429, {"retry-after": "1"}, failure(429, "TooManyRequests", "busy").body)
                if fault == "failed":
                    return failure(500, "InternalError", "etcdserver: request timed out")
                if fault == "stale" and str(request) in self._stale:
                    return self._stale[str(request)]
                answer = self._answer(what, request)
                return Response(answer.status, answer.headers, answer.body[: len(answer.body) // 2])
            answer = self._answer(what, request)
            self._stale.setdefault(str(request), answer)
            return answer

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[Stream]:
        what = self._what(request)
        self.requests.append(what)
        with self._socket():
            await asyncio.sleep(self.latency_s)
            self._reach(what)
            query = dict(request.query)
            plural = request.path.rsplit("/", 1)[1]
            self.watched_from.append(int(query["resourceVersion"]))
            refusal = self.refuse.get(f"WATCH {plural}") or self._script(f"WATCH {plural}")
            if refusal is None and int(query["resourceVersion"]) < self.compacted:
                refusal = failure(410, "Expired", "too old resource version")
            if refusal is not None:
                lines = _given(refusal.body.splitlines() if refusal.status == 200 else [])
                yield Stream(refusal.status, {}, refusal.body, lines)
                return
            lines = self._lines(plural, int(query["resourceVersion"]))
            async with aclosing(lines):
                yield Stream(200, {}, b"", self._faulty(lines))

    async def close(self) -> None:
        """There is nothing to close."""

    def _socket(self) -> _Socket:
        return _Socket(self)

    def _reach(self, what: str) -> None:
        if not self.reachable:
            raise TransportError(f"{what}: connection refused", sent=False)

    def _what(self, request: Request) -> str:
        query, parts = dict(request.query), request.path.strip("/").split("/")
        if request.path in ("/api/v1", "/version") or (parts[0] == "apis" and len(parts) == 3):
            return f"DISCOVER {request.path}"
        if parts[-1] in KINDS:
            kind = "WATCH" if "watch" in query else "LIST"
            accept = dict(request.headers)["accept"]
            return f"{'META' if 'PartialObject' in accept and kind == 'LIST' else kind} {parts[-1]}"
        return f"{request.method} {parts[-2]} {parts[-1]}"

    def _script(self, what: str) -> Response | None:
        for index, (point, answer) in enumerate(self.scripted):
            if point == what:
                del self.scripted[index]
                return answer
        return None

    def _answer(self, what: str, request: Request) -> Response:
        verb, plural = what.split()[:2]
        scripted = self.refuse.get(f"{verb} {plural}") or self._script(f"{verb} {plural}")
        if scripted is not None:
            return scripted
        if verb == "DISCOVER":
            return self._discover(request.path)
        if verb in ("LIST", "META"):
            return self._list(plural, dict(request.query), metadata_only=verb == "META")
        key = ObjectKey(KINDS[plural][0].rpartition("/")[0], KINDS[plural][1], "p", what.split()[2])
        found = self.objects.get(key)
        if found is None:
            return failure(404, "NotFound", f"{plural} not found", name=key.name, kind=plural)
        return Response(200, {}, json.dumps(found).encode())

    def _discover(self, path: str) -> Response:
        api_version = path.removeprefix("/apis/").removeprefix("/api/")
        resources = [
            {"name": name, "kind": kind, "namespaced": True}
            for plural, (version, kind) in KINDS.items()
            if version == api_version and plural in self.served
            for name in (plural + "/status", plural)
        ]
        body = {"kind": "APIResourceList", "groupVersion": api_version, "resources": resources}
        return Response(200, {}, json.dumps(body).encode())

    def _list(self, plural: str, query: dict[str, str], *, metadata_only: bool) -> Response:
        items = [
            self.objects[key]
            for key in sorted(self.objects)
            if PLURALS[key.kind] == plural and OWNER in self.objects[key]["metadata"]["labels"]
        ]
        start, revision = 0, self.revision
        if "continue" in query:
            start, revision = (int(part) for part in query["continue"].split(":"))
            if revision != self.revision:
                return failure(410, "Expired", "The provided continue parameter is too old")
        end = start + int(query["limit"])
        metadata: dict[str, Any] = {"resourceVersion": str(revision)}
        if end < len(items):
            metadata |= {"continue": f"{end}:{revision}", "remainingItemCount": len(items) - end}
        page = items[start:end]
        if metadata_only:
            page = [{"kind": "PartialObjectMetadata", "metadata": item["metadata"]} for item in page]
        kind = "PartialObjectMetadataList" if metadata_only else KINDS[plural][1] + "List"
        return Response(200, {}, json.dumps({"kind": kind, "metadata": metadata, "items": page}).encode())

    async def _lines(self, plural: str, revision: int) -> AsyncGenerator[bytes, None]:
        broken = asyncio.Event()
        self._breaks.append(broken)
        number = len(self._breaks)
        while True:
            for event in [event for event in self.log if event.revision > revision]:
                line = self._line(event, plural)
                revision = event.revision
                if line is not None and not self._is_mute(number):
                    yield line
            changed = self._changed
            waits = {asyncio.ensure_future(changed.wait()), asyncio.ensure_future(broken.wait())}
            try:
                await asyncio.wait(waits, timeout=BOOKMARK_S, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in waits:
                    each.cancel()
            if broken.is_set():
                raise TransportError("reset", sent=True)
            if not self.reachable:
                await broken.wait()
                raise TransportError("reset", sent=True)
            if not changed.is_set() and not self._is_mute(number):
                yield json.dumps(
                    {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self.revision)}}}
                ).encode()

    def _is_mute(self, number: int) -> bool:
        return self.mute_watches or number <= self.muted

    def _line(self, event: Event, plural: str) -> bytes | None:
        if PLURALS[event.manifest["kind"]] != plural:
            return None
        had = event.before is not None and OWNER in event.before["metadata"]["labels"]
        has = event.type != "DELETED" and OWNER in event.manifest["metadata"]["labels"]
        kind = {(False, True): "ADDED", (True, True): "MODIFIED", (True, False): "DELETED"}.get((had, has))
        return None if kind is None else json.dumps({"type": kind, "object": event.manifest}).encode()

    async def _faulty(self, lines: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        held: bytes | None = None
        async for line in lines:
            fault = self.faults.pick("lose", "double", "delay", "cut", "end", "gone") if self.faults.hit() else ""
            if fault == "end":
                return
            if fault == "gone":
                status = json.loads(failure(410, "Expired", "too old resource version").body)
                yield json.dumps({"type": "ERROR", "object": status}).encode()
            if fault == "delay" and held is None:
                held = line
                continue
            if fault != "lose":
                yield line[: len(line) // 2] if fault == "cut" else line
            if fault == "double":
                yield line
            if held is not None:
                yield held
                held = None


@dataclass
class _Socket:
    api: SmallApi

    def __enter__(self) -> None:
        self.api.open_now += 1
        self.api.open_max = max(self.api.open_max, self.api.open_now)

    def __exit__(self, *_: object) -> None:
        self.api.open_now -= 1


async def _given(lines: list[bytes]) -> AsyncGenerator[bytes, None]:
    for line in lines:
        yield line
