"""A cluster's connection, made when it is first needed.

Reading a kubeconfig may wait for a credential plugin, and the file may come later than the daemon: so the connection is
made by the first request, within its timeout, and a kubeconfig that cannot be used is "no connection" with the reason,
tried again like any other. Requests and their latencies are counted here, for every cluster alike.

    KubeCluster(name, MeteredTransport(LazyTransport(lambda: transport_from_kubeconfig(path)), metrics))
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from reconciler.shell.kubeconfig_refusals import KubeconfigError
from reconciler.shell.metrics import Metrics
from reconciler.shell.transport import Request, Response, Stream, Transport, TransportError


class LazyTransport:
    """A Transport over the one that `make` gives; `make` may fail with anything and is then asked again."""

    def __init__(self, make: Callable[[], Awaitable[Transport]]) -> None:
        self._make = make
        self._made: Transport | None = None
        self._closed = False
        self._lock = asyncio.Lock()

    async def request(self, request: Request) -> Response:
        """As Transport.request."""
        return await (await self._inner(request.timeout_s)).request(request)

    def stream(self, request: Request) -> AbstractAsyncContextManager[Stream]:
        """As Transport.stream."""
        return self._stream(request)

    @asynccontextmanager
    async def _stream(self, request: Request) -> AsyncIterator[Stream]:
        inner = await self._inner(request.timeout_s)
        async with inner.stream(request) as stream:
            yield stream

    async def close(self) -> None:
        """As Transport.close."""
        self._closed = True
        made, self._made = self._made, None
        if made is not None:
            await made.close()

    async def _inner(self, timeout_s: float) -> Transport:
        """The connection, made within `timeout_s`, the wait for others who are making it included."""
        try:
            async with asyncio.timeout(timeout_s), self._lock:
                if self._closed:
                    raise TransportError("the connection is closed", sent=False)
                if self._made is None:
                    self._made = await self._make()
                return self._made
        except (TransportError, AssertionError):
            raise
        except KubeconfigError as error:
            raise TransportError(str(error), sent=False, code=error.code) from error
        except TimeoutError as error:
            raise TransportError(f"the credentials did not come within {timeout_s:g} s", sent=False) from error
        except Exception as error:
            # Whatever a stranger's file or library comes up with: one cluster is out of reach, and no lane ends.
            raise TransportError(f"the connection cannot be made ({type(error).__name__})", sent=False) from error


class MeteredTransport:
    """A Transport that counts requests by method and class of answer, and times writes by the loop's clock."""

    def __init__(self, inner: Transport, metrics: Metrics) -> None:
        self._inner = inner
        self._metrics = metrics

    async def request(self, request: Request) -> Response:
        """As Transport.request."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        code = "none"
        try:
            answer = await self._inner.request(request)
            code = f"{answer.status // 100}xx"
            return answer
        finally:
            self._metrics.add("kube_requests", verb=request.method, code=code)
            if request.method != "GET":
                self._metrics.observe("kube_write_duration_seconds", loop.time() - started_s)

    def stream(self, request: Request) -> AbstractAsyncContextManager[Stream]:
        """As Transport.stream."""
        return self._stream(request)

    @asynccontextmanager
    async def _stream(self, request: Request) -> AsyncIterator[Stream]:
        async with self._inner.stream(request) as stream:
            self._metrics.add("kube_requests", verb="WATCH", code=f"{stream.status // 100}xx")
            yield stream

    async def close(self) -> None:
        """As Transport.close."""
        await self._inner.close()
