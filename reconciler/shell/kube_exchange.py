"""One exchange with an API server: a request, its answer as JSON, or a KubeError that says what is to be done.

Never repeated here: whether to try again is decided by whoever knows what the request meant.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson

from reconciler.shell.kube_answers import encode
from reconciler.shell.kube_errors import Attempt, from_response, from_transport, unexpected_answer
from reconciler.shell.transport import Request, Response, Transport, TransportError

READ_TIMEOUT_S = 20.0
WRITE_TIMEOUT_S = 30.0
#: With three watches this keeps a cluster below twelve sockets.
REQUESTS_AT_ONCE = 8


class KubeExchange:
    """Exchanges over one Transport, so many at a time."""

    def __init__(self, transport: Transport, user_agent: str) -> None:
        self._transport = transport
        self._user_agent = user_agent
        self._slots = asyncio.Semaphore(REQUESTS_AT_ONCE)

    async def close(self) -> None:
        """Close the transport. May be called twice."""
        await self._transport.close()

    def _request(
        self,
        method: str,
        path: str,
        query: tuple[tuple[str, str], ...],
        attempt: Attempt,
        *,
        accept: str = "application/json",
        content_type: str = "",
        body: bytes = b"",
        timeout_s: float,
    ) -> Request:
        headers = [("accept", accept), ("user-agent", self._user_agent)]
        headers += [("content-type", content_type)] if body else []
        headers += attempt.identity.headers() if attempt.identity is not None else ()
        return Request(method, path, query, tuple(headers), body, timeout_s)

    async def _json(
        self,
        method: str,
        path: str,
        attempt: Attempt,
        *,
        query: tuple[tuple[str, str], ...] = (),
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """One request and its answer as a JSON object. Everything else raises KubeError."""
        request = self._request(
            method,
            path,
            query,
            attempt,
            accept=accept,
            content_type=content_type,
            body=b"" if body is None else encode(body),
            timeout_s=timeout_s or (READ_TIMEOUT_S if method == "GET" else WRITE_TIMEOUT_S),
        )
        response = await self._exchange(request, attempt)
        try:
            value = orjson.loads(response.body)
        except orjson.JSONDecodeError as error:
            raise unexpected_answer(f"{method} was answered without JSON", attempt, response.status) from error
        if not isinstance(value, dict):
            raise unexpected_answer(f"{method} was answered without an object", attempt, response.status)
        return value

    async def _exchange(self, request: Request, attempt: Attempt) -> Response:
        """One request and its answer, if it is a success. Everything else raises KubeError."""
        async with self._slots:
            try:
                response = await self._transport.request(request)
            except TransportError as error:
                raise from_transport(error, attempt) from error
        if not 200 <= response.status < 300:
            raise from_response(response, attempt)
        return response
