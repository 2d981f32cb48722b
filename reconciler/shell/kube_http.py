"""The Transport to a real API server: aiohttp, raw bytes, and never a request sent twice.

Everything above this module (requests, retries, watches) is the same code in the simulator; here is only what a
network adds: TLS, credentials, connection limits, timeouts, and an honest answer to the one question that matters
after an error: may the request have reached the server? `TransportError.sent` is False while the connection, the
proxy, the name or the TLS handshake failed or no connection was free in time, and True from the moment the headers
were handed to the connection.

aiohttp by itself repeats an idempotent request (a DELETE, a PUT) when a kept connection turns out to be closed. We
forbid that: the second sending within one request is refused and reported as ambiguous, for the caller alone knows
what may be repeated.

An answer is taken as it stands on the wire: compression is declined, and an answer that is compressed all the same is
refused, for some kilobytes may inflate to gigabytes. Names are looked up by threads of their own where `threads` are
given (`kube_names.py`).

Example: `transport = await transport_from_kubeconfig(Path("eu-west-1a.kubeconfig"), context=None)`, then
`await transport.request(Request("GET", "/version"))`.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Protocol
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from reconciler.shell.kube_names import NameResolver
from reconciler.shell.kubeconfig import Connection, KubeconfigFiles, SslContexts, load_connection
from reconciler.shell.kubeconfig_refusals import KubeconfigError
from reconciler.shell.tls_buffers import shrink_tls_buffers
from reconciler.shell.transport import Request, Response, Stream, TransportError

CONNECTIONS_PER_CLUSTER = 12
#: Of one answer. The largest is a page of LIST_PAGE_OBJECTS (100) objects, which may have 650 KiB each on average.
MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_LINE_BYTES = 16 * 1024 * 1024
UNQUOTED_IN_PATH = "/:@!$&'()*+,;=~-._"


class RepeatRefusedError(Exception):
    """The library wanted to send a request for the second time."""


#: What the network, the library and the credentials may fail with; TimeoutError and SSL errors are OSErrors.
FAILURES = (aiohttp.ClientError, OSError, ValueError, KubeconfigError, RepeatRefusedError)
#: What the system says when the network leads nowhere.
NO_ROUTE = (errno.EHOSTUNREACH, errno.ENETUNREACH)
NOT_FROM_OUR_AUTHORITY = "its certificate is not from the authority that the kubeconfig trusts"
ANOTHER_NAME = "its certificate is for another name than the one in the kubeconfig"
#: What is wrong with an API server's certificate, by OpenSSL's X509_V_ERR codes; for others its own words.
CERTIFICATE_WORDS = {
    9: "its certificate is not valid yet: are both clocks right?",
    10: "its certificate has expired",
    18: NOT_FROM_OUR_AUTHORITY,
    19: NOT_FROM_OUR_AUTHORITY,
    20: NOT_FROM_OUR_AUTHORITY,
    21: NOT_FROM_OUR_AUTHORITY,
    62: ANOTHER_NAME,
    64: ANOTHER_NAME,
}


class Credentials(Protocol):
    """Where the Authorization header comes from; it may change while the transport lives."""

    async def authorization(self) -> str | None:
        """The header's value now, None for a client certificate or no user."""
        ...

    def rejected(self) -> None:
        """The server answered 401: read the credentials anew before the next request."""
        ...


@dataclass(slots=True)
class Progress:
    """How far one request got."""

    sent: bool = False


@dataclass(slots=True)
class AiohttpTransport:
    """One connection pool to one API server."""

    connection: Connection
    credentials: Credentials
    max_connections: int = CONNECTIONS_PER_CLUSTER
    max_body_bytes: int = MAX_BODY_BYTES
    max_line_bytes: int = MAX_LINE_BYTES
    threads: Executor | None = None
    _session: aiohttp.ClientSession | None = field(default=None, init=False)
    _names: NameResolver | None = field(default=None, init=False)
    _closed: bool = field(default=False, init=False)

    async def request(self, request: Request) -> Response:
        """Send and wait for the whole answer, within the request's timeout."""
        progress = Progress()
        try:
            async with (
                asyncio.timeout(request.timeout_s),
                await self._send(request, progress) as answer,
            ):
                body = await self._whole_body(request, answer)
        except FAILURES as error:
            raise translated(request, progress, error) from error
        return Response(answer.status, lower_case(answer.headers), body)

    @asynccontextmanager
    async def _streaming(self, request: Request) -> AsyncIterator[Stream]:
        progress = Progress()
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(request.timeout_s):
                    answer = await stack.enter_async_context(await self._send(request, progress))
                    body = b"" if answer.status == 200 else await self._whole_body(request, answer)
            except FAILURES as error:
                raise translated(request, progress, error) from error
            lines = self._lines(request, answer)
            try:
                yield Stream(answer.status, lower_case(answer.headers), body, lines)
            finally:
                # A closed connection, not one given back to the pool: the server would go on writing into it. Aborted,
                # for closing TLS politely would keep the socket until the server, busy writing, says goodbye.
                connection = answer.connection
                if connection is not None and connection.transport is not None:
                    connection.transport.abort()
                answer.close()
                await lines.aclose()

    def stream(self, request: Request) -> AbstractAsyncContextManager[Stream]:
        """Send and read line by line; the timeout ends with the headers, idle streams are the caller's to judge."""
        return self._streaming(request)

    async def close(self) -> None:
        """Close all connections; may be called twice."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        if self._names is not None:
            await self._names.close()

    async def _send(self, request: Request, progress: Progress) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Everything up to the moment aiohttp takes over; nothing is sent before the context is entered."""
        if self._closed:
            raise TransportError("the transport is closed", sent=False, asked=describe(request))
        authorization = await self.credentials.authorization()
        headers = [("Accept-Encoding", "identity"), *request.headers]
        if authorization is not None:
            headers.append(("Authorization", authorization))
        return self._opened().request(
            request.method,
            self._url(request),
            headers=headers,
            data=request.body or None,
            allow_redirects=False,
            ssl=self.connection.ssl_context or True,
            server_hostname=self.connection.tls_server_name,
            proxy=self.connection.proxy,
            trace_request_ctx=progress,
        )

    def _url(self, request: Request) -> URL:
        """The address, quoted here so that neither a name nor a continue token is read as syntax."""
        query = urlencode(request.query, quote_via=quote)
        path = quote(request.path, safe=UNQUOTED_IN_PATH)
        return URL(self.connection.server + path + (f"?{query}" if query else ""), encoded=True)

    def _opened(self) -> aiohttp.ClientSession:
        """The session, made at the first request because it belongs to the running loop."""
        if self._session is None:
            shrink_tls_buffers()
            self._names = None if self.threads is None else NameResolver(self.threads)
            trace = aiohttp.TraceConfig()
            trace.on_request_headers_sent.append(note_sent)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self.max_connections,
                    keepalive_timeout=60,
                    resolver=self._names,
                ),
                # Our own timeout covers the whole exchange, aiohttp's would also end watches.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                skip_auto_headers=("Accept-Encoding", "Content-Type", "User-Agent"),
                trace_configs=[trace],
            )
        return self._session

    async def _whole_body(self, request: Request, answer: aiohttp.ClientResponse) -> bytes:
        """The body, up to a limit that protects our memory."""
        if answer.status == 401:
            self.credentials.rejected()
        refuse_encoded(request, answer)
        parts: list[bytes] = []
        size = 0
        async for part in answer.content.iter_any():
            parts.append(part)
            size += len(part)
            if size > self.max_body_bytes:
                raise TransportError(f"answer over {self.max_body_bytes} bytes", sent=True, asked=describe(request))
        return b"".join(parts)

    async def _lines(self, request: Request, answer: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        """Split into lines without aiohttp's limit on their length; a last line without a newline was cut off."""
        if answer.status != 200:
            return
        refuse_encoded(request, answer)
        rest: list[bytes] = []
        size = 0
        try:
            async for part in answer.content.iter_any():
                *ends, tail = part.split(b"\n")
                for end in ends:
                    rest.append(end)
                    line = b"".join(rest)
                    rest, size = [], 0
                    if line:
                        yield line
                rest.append(tail)
                size += len(tail)
                if size > self.max_line_bytes:
                    raise TransportError(f"line over {self.max_line_bytes} bytes", sent=True, asked=describe(request))
        except (aiohttp.ClientError, OSError) as error:
            raise TransportError(explained(error), sent=True, asked=describe(request)) from error
        if any(rest):
            raise TransportError("the stream ended within a line", sent=True, asked=describe(request))


async def note_sent(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _params: aiohttp.TraceRequestHeadersSentParams
) -> None:
    """aiohttp is about to write the headers: from here on the outcome is ambiguous, and once is enough."""
    progress: Progress = context.trace_request_ctx
    if progress.sent:
        raise RepeatRefusedError
    progress.sent = True


def refuse_encoded(request: Request, answer: aiohttp.ClientResponse) -> None:
    """Raise TransportError for an answer in an encoding that nobody asked for."""
    encoding = answer.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        message = f"the answer is encoded as {encoding[:40]!r}, which was not asked for"
        raise TransportError(message, sent=True, asked=describe(request))


def describe(request: Request) -> str:
    """The request in an error's text; queries and bodies are left out, they may carry tokens."""
    return f"{request.method} {request.path}"


def explained(error: Exception) -> str:
    """What an error of the library means in few words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, RepeatRefusedError):
        return "the connection was closed while the request was on its way"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the name {error.host} does not resolve"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return CERTIFICATE_WORDS.get(cause.verify_code) or f"its certificate is not accepted: {cause.verify_message}"
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused"
    if isinstance(cause, OSError) and cause.errno in NO_ROUTE:
        return "no route to it"
    if isinstance(cause, (aiohttp.ServerDisconnectedError, ConnectionResetError)):
        return "the connection was closed"
    return str(error) or type(error).__name__


def translated(request: Request, progress: Progress, error: Exception) -> TransportError:
    """Any failure of the network as a TransportError; connection errors always come before the headers."""
    connecting = isinstance(error, (aiohttp.ClientConnectorError, aiohttp.InvalidURL, aiohttp.ClientHttpProxyError))
    return TransportError(explained(error), sent=progress.sent and not connecting, asked=describe(request))


def lower_case(headers: Mapping[str, str]) -> dict[str, str]:
    """Header names in lower case; of a repeated header the last value."""
    return {name.lower(): value for name, value in headers.items()}


async def transport_from_kubeconfig(
    path: Path,
    context: str | None = None,
    *,
    allow_exec: bool = False,
    allow_files: bool = False,
    allow_insecure: bool = False,
    ssl_contexts: SslContexts | None = None,
    files: KubeconfigFiles | None = None,
    max_connections: int = CONNECTIONS_PER_CLUSTER,
    threads: Executor | None = None,
) -> AiohttpTransport:
    """The transport to the cluster of one context of a kubeconfig; KubeconfigError names what is refused and why.
    `threads` look names up, by default the loop's own."""
    connection, credentials = await load_connection(
        path,
        context,
        allow_exec=allow_exec,
        allow_files=allow_files,
        allow_insecure=allow_insecure,
        ssl_contexts=ssl_contexts or SslContexts(),
        files=files,
    )
    return AiohttpTransport(connection, credentials, max_connections=max_connections, threads=threads)
