"""The line to an API server: bytes go through until somebody cuts it.

The daemon reaches a real control plane through one of these, and a step can cut it as an excavator would: open
connections break, new ones are refused, and the server behind it goes on as if nothing had happened. TLS passes
through untouched.

    line = Line("127.0.0.1", 6443)
    await line.mend()
    line.port                    # where to connect to instead; it stays the same
    await line.cut()
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

#: Bytes taken from one side before the other has to take them.
CHUNK_BYTES = 256 * 1024


class Line:
    """A way to one address. It is cut until it is mended for the first time."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self.port = 0
        self._listener: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self._carrying: set[asyncio.Task[None]] = set()

    async def mend(self) -> None:
        """Let connections through."""
        if self._listener is None:
            self._listener = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
            self.port = self._listener.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Break all connections and refuse new ones; the port is kept for later. Returns once all are broken."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        for end in list(self._ends):
            end.transport.abort()
        if self._carrying:
            await asyncio.wait(set(self._carrying))

    async def _carry(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        self._ends.add(near)
        far: asyncio.StreamWriter | None = None
        try:
            far_reader, far = await asyncio.open_connection(*self._to)
            self._ends.add(far)
            if self._listener is None:
                return  # cut meanwhile
            await asyncio.gather(_pump(near_reader, far), _pump(far_reader, near))
        except OSError:
            pass  # one side broke it off, or the server is not there: the other side sees the same
        finally:
            for end in (near, far):
                if end is not None:
                    end.transport.abort()
                    self._ends.discard(end)
            self._carrying.discard(task)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on until one side ends; the other side is told."""
    with suppress(OSError):
        while part := await reader.read(CHUNK_BYTES):
            writer.write(part)
            await writer.drain()
    writer.close()
