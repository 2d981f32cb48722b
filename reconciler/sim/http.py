"""The simulated API server over HTTP: a thin face on `SimApiServer.handle`, on 127.0.0.1.

    async with serve(server) as url: ...                       # one listener of one cluster

    face = HttpFace({"eu-west-1a": server_a, "eu-west-1b": server_b}, token="...")
    await face.start()                                         # one listener; a cluster is a path prefix
    face.write_kubeconfig(path)                                # a context for each cluster
    await face.stop()

An `intercept` sees each request before the engine does: it may wait, answer itself (an injected 503), or raise
ConnectionDropped, whereupon the connection is cut without an answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
from aiohttp import web

from reconciler.shell.transport import Request, Response, Stream
from reconciler.sim.apiserver import SimApiServer
from reconciler.sim.watch import Watch

Intercept = Callable[[str, Request], Awaitable[Response | None]]
BODY_BYTES_MAX = 3 * 1024 * 1024
#: A client that sends this header with a watch finds the lines written to it in `watch_lines`, for as long as it lasts.
WATCH_ID = "x-watch-id"


class ConnectionDropped(Exception):  # noqa: N818 - it is an event to play, not an error of this program
    """Raised by an intercept: cut the connection without an answer."""


class HttpFace:
    """A listener of simulated clusters: each is served below /clusters/NAME, or a single one at the root."""

    def __init__(
        self,
        servers: Mapping[str, SimApiServer],
        *,
        intercept: Intercept | None = None,
        token: str | None = None,
        port: int = 0,
        at_root: bool = False,
    ) -> None:
        """`token` is needed as bearer token when given (and where a server has users of its own, one of theirs);
        `intercept` is called with the cluster's name and the request, its path without the prefix."""
        self.servers = dict(servers)
        self.intercept = intercept
        self.token = token
        self.watch_lines: dict[str, int] = {}
        self._port = port
        self._at_root = at_root
        self._runner: web.AppRunner | None = None
        self._base = ""

    def url(self, name: str) -> str:
        """The address of one cluster's API server."""
        return self._base if self._at_root else f"{self._base}/clusters/{name}"

    async def start(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        application = web.Application(client_max_size=BODY_BYTES_MAX)
        application.router.add_route("*", "/{path:.*}", self._handle)
        # A client that goes away cancels its handler, which closes its watch.
        self._runner = web.AppRunner(
            application, access_log=None, handle_signals=False, shutdown_timeout=1.0, handler_cancellation=True
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self._base = f"http://{host}:{port}"

    async def stop(self) -> None:
        """End all watches and close the listener. May be called twice."""
        for server in self.servers.values():
            server.end_watches()
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    def write_kubeconfig(self, path: Path) -> None:
        """A kubeconfig with a context for each cluster, named after it. Readable by the owner only."""
        user = {"token": self.token} if self.token else {}
        names = sorted(self.servers)
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": self.url(name)}} for name in names],
            "users": [{"name": "simulated", "user": user}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": "simulated"}} for name in names],
            "current-context": names[0],
        }
        path.touch(mode=0o600)
        path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))

    def _locate(self, path: str) -> tuple[str, str] | None:
        """(cluster, path on it)."""
        if self._at_root:
            return next(iter(self.servers)), path
        parts = path.split("/", 3)
        if len(parts) < 3 or parts[1] != "clusters" or parts[2] not in self.servers:
            return None
        return parts[2], "/" + (parts[3] if len(parts) > 3 else "")

    async def _handle(self, incoming: web.Request) -> web.StreamResponse:
        located = self._locate(incoming.path)
        if located is None:
            return web.Response(status=404, text="404 page not found\n")
        name, path = located
        query = tuple((key, value) for key, value in incoming.query.items())
        headers = tuple((key, value) for key, value in incoming.headers.items())
        request = Request(incoming.method, path, query, headers, await incoming.read())
        try:
            answer = await self._answer(name, request)
        except ConnectionDropped:
            if incoming.transport is not None:
                incoming.transport.abort()
            return web.Response(status=503)
        if isinstance(answer, Response):
            return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
        return await self._stream(incoming, answer)

    async def _answer(self, name: str, request: Request) -> Response | Stream:
        if self.intercept is not None:
            early = await self.intercept(name, request)
            if early is not None:
                return early
        if self.token is not None and ("Bearer " + self.token) not in _authorization(request):
            return Response(401, {"content-type": "application/json"}, UNAUTHORIZED)
        return self.servers[name].handle(request)

    async def _stream(self, incoming: web.Request, answer: Stream) -> web.StreamResponse:
        outgoing = web.StreamResponse(status=answer.status, headers=answer.headers)
        watch = answer.lines
        assert isinstance(watch, Watch)
        # A line is pending until it is written.
        watch.acknowledge = True
        name = incoming.headers.get(WATCH_ID)
        try:
            if name is not None:
                self.watch_lines[name] = 0
            await outgoing.prepare(incoming)
            async for line in watch:
                if name is not None:
                    self.watch_lines[name] += 1
                await outgoing.write(line + b"\n")
            await outgoing.write_eof()
        except ConnectionResetError:
            # The client closed its watch: the usual end.
            pass
        finally:
            if name is not None:
                self.watch_lines.pop(name, None)
            await watch.aclose()
        return outgoing


def _authorization(request: Request) -> tuple[str, ...]:
    return tuple(value for name, value in request.headers if name.lower() == "authorization")


UNAUTHORIZED = orjson.dumps(
    {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "Unauthorized",
        "reason": "Unauthorized",
        "code": 401,
    }
)


@asynccontextmanager
async def serve(
    server: SimApiServer, *, intercept: Intercept | None = None, token: str | None = None
) -> AsyncIterator[str]:
    """One cluster on a listener of its own; the value is its URL."""
    face = HttpFace({"simulated": server}, intercept=intercept, token=token, at_root=True)
    await face.start()
    try:
        yield face.url("simulated")
    finally:
        await face.stop()
