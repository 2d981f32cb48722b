"""Serving the API: on the socket in the state directory, and on TCP where the settings say so.

server = await serve(daemon, settings, on_failure)
server.addresses        # ("unix:/var/lib/reconciler/reconciler.sock", "http://127.0.0.1:8080")
await server.stop()
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from reconciler.settings_values import Listen
from reconciler.shell.daemon import Daemon
from reconciler.shell.logs import event
from reconciler.shell.scope import Scope
from reconciler.socket_path import make_directory, socket_path
from reconciler.web.access import guarded_by
from reconciler.web.api import BODY_BYTES_MAX, add_routes, errors
from reconciler.web.probes import LoopLag, add_probes

_LOG = logging.getLogger(__name__)

#: How long requests that are being answered may still take when the server stops.
STOP_TIMEOUT_S = 1.0
SOCKET_BACKLOG = 128


class Serving(Protocol):
    """What the server needs of the settings."""

    @property
    def state_dir(self) -> Path: ...
    @property
    def listen(self) -> Listen | None: ...
    @property
    def token_file(self) -> Path | None: ...


@dataclass(slots=True)
class Server:
    """A running server. `addresses` says where, `url` is the first one over TCP ("" without)."""

    addresses: tuple[str, ...]
    _runners: list[web.AppRunner]
    _scope: Scope
    _socket: Path | None = field(default=None)

    @property
    def url(self) -> str:
        """The address for browsers and `--server`."""
        return next((address for address in self.addresses if address.startswith("http")), "")

    async def stop(self) -> None:
        """Answer what is being answered, then close."""
        for runner in self._runners:
            await runner.cleanup()
        await self._scope.close(STOP_TIMEOUT_S)
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)


async def serve(daemon: Daemon, settings: Serving, on_failure: Callable[[str, BaseException], None]) -> Server:
    """Listen. Raises OSError (with the address in its text) where that is not possible."""
    lag = LoopLag()
    runners: list[web.AppRunner] = []
    addresses: list[str] = []
    path = socket_path(settings.state_dir)
    try:
        local = await _runner(daemon, lag, None)
        runners.append(local)
        await _start(local, _unix_socket(path))
        addresses.append(f"unix:{path}")
        if settings.listen is not None:
            remote = await _runner(daemon, lag, settings)
            runners.append(remote)
            await _start(remote, _tcp_socket(settings.listen))
            host, port = remote.addresses[0][:2]
            addresses.append(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    except BaseException:
        for runner in runners:
            await runner.cleanup()
        path.unlink(missing_ok=True)
        raise
    scope = Scope("api", on_failure)
    scope.start("loop-lag", lag.follow())
    event(_LOG, logging.INFO, "api.listening", addresses=addresses)
    return Server(tuple(addresses), runners, scope, path)


async def _runner(daemon: Daemon, lag: LoopLag, guarded: Serving | None) -> web.AppRunner:
    """The same application for both: over TCP with a guard before it."""
    middlewares: list[Any] = [errors] if guarded is None else [errors, guarded_by(guarded.token_file)]
    application = web.Application(middlewares=middlewares, client_max_size=BODY_BYTES_MAX)
    add_probes(application, daemon, lag)
    add_routes(application, daemon)
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=STOP_TIMEOUT_S)
    await runner.setup()
    return runner


def _unix_socket(path: Path) -> socket.socket:
    """A socket that only its owner can connect to. One that is left from a daemon that was killed is replaced: the
    state directory's lock says that there is no other."""
    make_directory(path)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {path}: {error.strerror}") from error
    finally:
        os.umask(before)
    listener.setblocking(False)
    listener.listen(SOCKET_BACKLOG)
    return listener


def _tcp_socket(listen: Listen) -> socket.socket:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        listener = socket.create_server((listen.host, listen.port), family=family, backlog=SOCKET_BACKLOG)
    except OSError as error:
        where = f"{listen.host}:{listen.port}"
        raise OSError(f"cannot listen on {where}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


async def _start(runner: web.AppRunner, listener: socket.socket) -> None:
    """Serve on `listener`, or close it: a start that is cancelled half-way would leave it open, and listened to."""
    try:
        await web.SockSite(runner, listener).start()
    except BaseException:
        if listener.fileno() != -1:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        raise
