"""Who may ask the API over the network.

The socket in the state directory belongs to its owner, and the file system says who that is. Over TCP a token is
needed when there is one; without one only this machine may listen, and then a web page that somebody opens here must
not be able to steer: a request that a browser sends for another site is refused by its Host and Origin.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from reconciler.shell.asking import AskError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: Asked by kubelets and load balancers, which have no token; they say nothing but yes or no.
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
TOKEN_BYTES_MIN = 16
TOKEN_BYTES_MAX = 4096


class ForbiddenError(AskError):
    """Who asks may not. `status` is 401 without a valid token, 403 for another site's page."""

    def __init__(self, status: int, code: str, message: str, hint: str = "") -> None:
        super().__init__(code, message, hint)
        self.status = status


def read_token(path: Path) -> bytes:
    """The token in a file; it is read for every request, so that it can be changed. Raises OSError or ValueError."""
    token = path.read_bytes()[: TOKEN_BYTES_MAX + 1].strip()
    if not TOKEN_BYTES_MIN <= len(token) <= TOKEN_BYTES_MAX or any(byte <= 32 or byte > 126 for byte in token):
        raise ValueError(f"{path} does not hold one token of {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} characters")
    return token


def guarded_by(token_file: Path | None) -> Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]:
    """A middleware for what listens on TCP."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in OPEN_PATHS:
            if token_file is not None:
                await _require_token(request, token_file)
            else:
                _require_this_machine(request)
        return await handler(request)

    return guard


async def _require_token(request: web.Request, token_file: Path) -> None:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    try:
        token = await asyncio.to_thread(read_token, token_file)
    except (OSError, ValueError) as error:
        # Nobody gets in, and whoever runs the daemon finds out why.
        raise ForbiddenError(503, "no-token", "the daemon cannot read its token file", "see its log") from error
    given_bytes = given.strip().encode("utf-8", "replace")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given_bytes, token):
        hint = "set RECONCILER_TOKEN to the content of the daemon's tokenFile"
        raise ForbiddenError(401, "unauthorized", "a valid token is needed", hint)


def _require_this_machine(request: web.Request) -> None:
    """No name but that of this machine (a name that resolves to it belongs to somebody else), and no other site."""
    host = urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
    if not _is_loopback(host):
        raise ForbiddenError(403, "forbidden", f"this address is not served as {host[:100]!r}", "use 127.0.0.1")
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("Host", ""):
        raise ForbiddenError(403, "forbidden", "requests of other sites are refused")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
