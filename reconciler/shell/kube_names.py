"""Looking names up without standing in anybody's way.

A look-up blocks a thread for as long as the name servers are silent, 20 seconds and more, and cannot be interrupted. On
the event loop's own few threads some clusters whose names hang would hold up all the others and whatever else needs a
thread. So look-ups get an executor of their own, and of one name at most one runs: a connection pool leads to one
server, so that as many threads are busy as clusters hang, however often they are asked for.

    aiohttp.TCPConnector(resolver=NameResolver(threads))
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import Executor
from functools import partial

from aiohttp.abc import AbstractResolver, ResolveResult

#: Name, port and address family of a look-up.
Name = tuple[str, int, int]
_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class NameResolver(AbstractResolver):
    """The resolver of one connection pool, on the running loop. `threads` are not ended with it; what a look-up brings
    after `close` is dropped."""

    def __init__(self, threads: Executor) -> None:
        self._threads = threads
        self._running: dict[Name, asyncio.Future[list[ResolveResult]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of `host`. Raises OSError."""
        key = (host, port, int(family))
        if key not in self._running:
            loop = asyncio.get_running_loop()
            self._running[key] = loop.run_in_executor(self._threads, look_up, host, port, family)
            self._running[key].add_done_callback(partial(self._ended, key))
        # Who stops waiting leaves the look-up to the next one: a thread that is ended by nothing is not started twice.
        found = self._running[key]
        try:
            return await asyncio.shield(found)
        except asyncio.CancelledError:
            if found.cancelled():
                raise OSError("the transport is closed") from None
            raise

    def _ended(self, key: Name, done: asyncio.Future[list[ResolveResult]]) -> None:
        self._running.pop(key, None)
        if not done.cancelled():
            done.exception()  # asked for, so that nobody is told of an error that nobody waited for

    async def close(self) -> None:
        """Forget what is still being looked up; its thread ends when the system gives up on the name."""
        for found in list(self._running.values()):
            found.cancel()


def look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    """The addresses of `host` as aiohttp wants them. Blocks. Raises OSError."""
    found = []
    infos = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    for found_family, _, protocol, _, address in infos:
        # An IPv6 address of one link carries the link's name only in this form.
        numeric, _ = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        found.append(
            ResolveResult(hostname=host, host=numeric, port=port, family=found_family, proto=protocol, flags=_NUMERIC)
        )
    return found
