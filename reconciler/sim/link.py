"""The way to a cluster: up, refused or silent; and one exchange over it, with the faults a plan decides on.

A `Link` is shared by every transport and by the HTTP face of one cluster. `exchange` is what both do with a request:
ask the plan, let the effect happen or not, lose the answer or not. It ends in a response or in `Dropped`, which a
transport translates into its own error and an HTTP face into a closed connection.
"""

from __future__ import annotations

import asyncio
import enum
import json
from collections.abc import Awaitable, Callable, Mapping

from reconciler.shell.transport import Response
from reconciler.sim.plan import FaultKind, FaultPlan, Generation


class LinkState(enum.StrEnum):
    """REFUSED: connections fail at once, open ones are cut. SILENT: packets vanish, and only timeouts tell."""

    UP = "up"
    REFUSED = "refused"
    SILENT = "silent"


class Link:
    """The way to one cluster."""

    def __init__(self) -> None:
        self.state = LinkState.UP
        self._changed: asyncio.Event | None = None

    @property
    def up(self) -> bool:
        return self.state is LinkState.UP

    def set(self, state: LinkState) -> None:
        """Change the state; what waits for a change goes on."""
        if state is not self.state:
            self.state = state
            if self._changed is not None:
                self._changed.set()
                self._changed = None

    async def changed(self) -> None:
        """Wait for the next change of state."""
        if self._changed is None:
            self._changed = asyncio.Event()
        await self._changed.wait()

    async def until_up(self) -> None:
        """Wait until the cluster can be reached."""
        while not self.up:
            await self.changed()


class Dropped(Exception):  # noqa: N818 - it tells an HTTP face to drop the connection
    """No answer goes back. `sent` says whether the request reached the server; `silent` that the connection stays open
    and says nothing, instead of being reset."""

    def __init__(self, message: str, *, sent: bool, silent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.silent = silent


async def exchange(
    point: str, plan: FaultPlan, link: Link, generation: Generation, effect: Callable[[], Awaitable[Response]]
) -> Response:
    """One request and its answer under `plan`: shared by FaultTransport and by the HTTP face. Raises Dropped."""
    generation.check()
    _reach(link, sent=False)
    fault = await plan.io(point)
    generation.check()
    _reach(link, sent=False)
    if fault.kind is FaultKind.CRASH_BEFORE:
        generation.crash(fault, point)
    if fault.kind is FaultKind.LOST_BEFORE:
        raise Dropped("connection refused", sent=False)
    if fault.kind is FaultKind.THROTTLED:
        return _status(429, "TooManyRequests", "too many requests", {"retry-after": str(max(1, round(fault.wait_s)))})
    if fault.kind in (FaultKind.SERVER_ERROR, FaultKind.BLACK_HOLE) and not fault.applied:
        response = _status(503, "ServiceUnavailable", "the server is currently unable to handle the request")
    else:
        response = await effect()
    generation.check()
    if fault.kind is FaultKind.CRASH_AFTER:
        generation.crash(fault, point)
    if fault.kind is FaultKind.CRASH_HANGING:
        await generation.hang(fault, point)
    if fault.kind is FaultKind.BLACK_HOLE:
        raise Dropped("no answer", sent=True, silent=True)
    if fault.after_s > 0:
        await asyncio.sleep(fault.after_s)
        generation.check()
    _reach(link, sent=True)
    if fault.kind is FaultKind.LOST_AFTER:
        raise Dropped("connection reset by peer", sent=True)
    if fault.kind is FaultKind.SERVER_ERROR and fault.applied:
        return _status(504, "Timeout", "request did not complete within the allotted timeout")
    return response


def _reach(link: Link, *, sent: bool) -> None:
    if link.state is LinkState.REFUSED:
        raise Dropped("connection reset by peer" if sent else "connection refused", sent=sent)
    if link.state is LinkState.SILENT:
        raise Dropped("no answer", sent=True, silent=True)


def _status(code: int, reason: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    document = body | {"message": message, "reason": reason, "code": code}
    return Response(code, {"content-type": "application/json", **(headers or {})}, json.dumps(document).encode())


def gone_event() -> bytes:
    """The line with which a watch says that its resourceVersion is too old."""
    status = json.loads(_status(410, "Expired", "too old resource version").body)
    return json.dumps({"type": "ERROR", "object": status}).encode()
