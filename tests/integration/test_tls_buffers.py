"""The read buffer of a TLS connection is small, and large answers come through it whole."""

from __future__ import annotations

import asyncio
import ssl
from asyncio import sslproto

import pytest
import trustme

from reconciler.shell.kube_http import AiohttpTransport
from reconciler.shell.kubeconfig import Connection, FixedCredentials
from reconciler.shell.tls_buffers import TLS_BUFFER_BYTES, shrink_tls_buffers
from reconciler.shell.transport import Request, TransportError
from tests.control_plane.server import free_ports

ASYNCIO_BYTES = 256 * 1024
#: Larger than any buffer on the way, and no multiple of one.
BODY = bytes(range(256)) * 20_000 + b"end"


async def a_buffer() -> int:
    """Into how much the next TLS connection would read."""
    loop, context = asyncio.get_running_loop(), ssl.create_default_context()
    protocol = sslproto.SSLProtocol(loop, asyncio.Protocol(), context, loop.create_future(), server_hostname="x")
    try:
        return len(protocol.get_buffer(-1))
    finally:
        protocol.connection_lost(None)


def test_this_python_has_the_size_where_we_look_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sslproto.SSLProtocol, "max_size", ASYNCIO_BYTES)
    assert asyncio.run(a_buffer()) == ASYNCIO_BYTES
    shrink_tls_buffers()
    shrink_tls_buffers()
    assert asyncio.run(a_buffer()) == TLS_BUFFER_BYTES


def test_a_smaller_one_or_none_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sslproto.SSLProtocol, "max_size", 1024)
    shrink_tls_buffers()
    assert sslproto.SSLProtocol.max_size == 1024
    monkeypatch.delattr(sslproto.SSLProtocol, "max_size")
    shrink_tls_buffers()
    assert not hasattr(sslproto.SSLProtocol, "max_size")


def test_the_first_request_to_a_cluster_sees_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sslproto.SSLProtocol, "max_size", ASYNCIO_BYTES)

    async def scenario() -> None:
        transport = AiohttpTransport(Connection(f"https://127.0.0.1:{free_ports(1)[0]}"), FixedCredentials(None))
        with pytest.raises(TransportError):
            await transport.request(Request("GET", "/"))
        await transport.close()
        assert await a_buffer() == TLS_BUFFER_BYTES

    asyncio.run(scenario())


def test_what_is_larger_than_the_buffer_comes_through_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sslproto.SSLProtocol, "max_size", ASYNCIO_BYTES)
    shrink_tls_buffers()
    authority = trustme.CA()
    serving, asking = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    authority.configure_trust(asking)

    async def scenario() -> None:
        served = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(BODY)
            assert await reader.read() == BODY
            writer.close()
            await writer.wait_closed()
            served.set()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=serving)
        async with server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=asking)
            writer.write(BODY)
            assert await reader.readexactly(len(BODY)) == BODY
            writer.close()
            await writer.wait_closed()
            await served.wait()

    asyncio.run(scenario())
