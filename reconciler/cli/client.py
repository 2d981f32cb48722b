"""Commands that ask a daemon: where it is, and one request after another to it.

The standard library's HTTP client is enough for a few small requests, and starts faster than any other. The daemon is
found by `--server`, RECONCILER_SERVER, `--config` (or RECONCILER_CONFIG), RECONCILER_STATE_DIR, the default state
directory: the first of them that is given is taken, and the next ones are not tried.

    client = find_client(server=None, config=None, environ=os.environ)
    client.get("/api/v1/explain", app="orders", cluster="eu-west-1a")
"""

from __future__ import annotations

import getpass
import http.client
import json
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from reconciler.cli.output import FAILED, USAGE, CommandError
from reconciler.socket_path import socket_path, trusted

TIMEOUT_S = 60.0
ANSWER_BYTES_MAX = 512 * 1024 * 1024
DEFAULT_STATE_DIR = Path("/var/lib/reconciler")


@dataclass(frozen=True, slots=True)
class Client:
    """One daemon. `where` says to people which one; either `socket` or `url` is given."""

    where: str
    socket: Path | None = None
    url: str = ""
    token: str = ""

    def get(self, path: str, **parameters: str | Sequence[str] | None) -> Any:
        """Ask. Raises CommandError."""
        given = {name: value for name, value in parameters.items() if value is not None}
        query = urlencode(given, doseq=True)
        return self._exchange("GET", path + (f"?{query}" if query else ""), None)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Order. Raises CommandError."""
        return self._exchange("POST", path, json.dumps(body).encode())

    def _exchange(self, method: str, target: str, body: bytes | None) -> Any:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        connection = self._connection()
        try:
            connection.request(method, urlsplit(self.url).path.rstrip("/") + target, body, headers)
            with connection.getresponse() as answer:
                content, status = answer.read(ANSWER_BYTES_MAX), answer.status
        except (OSError, http.client.HTTPException) as error:
            raise _no_daemon(self, error) from error
        finally:
            connection.close()
        return _understood(self, status, content)

    def _connection(self) -> http.client.HTTPConnection:
        if self.socket is not None:
            return _UnixConnection(self.socket)
        address = urlsplit(self.url)
        host = address.hostname or ""
        if address.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, address.port, timeout=TIMEOUT_S, context=context)
        return http.client.HTTPConnection(host, address.port, timeout=TIMEOUT_S)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _no_daemon(client: Client, error: Exception) -> CommandError:
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        message = f"no daemon is running at {client.where}"
        hint = "start one with `reconciler run --config FILE`, or name another with --server or --config"
        return CommandError(FAILED, "no-daemon", message, hint)
    why = "it does not answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    return CommandError(FAILED, "daemon-unreachable", f"cannot ask the daemon at {client.where}: {why}")


def _understood(client: Client, status: int, content: bytes) -> Any:
    try:
        value = json.loads(content)
    except ValueError as error:
        message = f"{client.where} does not answer like a Reconciler daemon (HTTP {status})"
        raise CommandError(FAILED, "not-a-daemon", message, "check --server") from error
    if status < 400:
        return value
    found = value.get("error") if isinstance(value, dict) else None
    if not isinstance(found, dict):
        raise CommandError(FAILED, "not-a-daemon", f"{client.where} answered HTTP {status}", "check --server")
    wrong_use = 400 <= status < 500 and status not in (401, 403, 408, 429)
    code, message, hint = (str(found.get(name, "")) for name in ("code", "message", "hint"))
    raise CommandError(USAGE if wrong_use else FAILED, code, message, hint)


# ---- where is it? --------------------------------------------------------------------------------------------------


def find_client(server: str | None, config: str | None, environ: Mapping[str, str]) -> Client:
    """The daemon that the arguments and the environment name. Raises CommandError."""
    token = environ.get("RECONCILER_TOKEN", "").strip()
    named = server or environ.get("RECONCILER_SERVER")
    if named:
        return _by_server(named, token)
    file = config or environ.get("RECONCILER_CONFIG")
    if file:
        return _by_state_dir(_state_dir_of(Path(file), environ))
    directory = environ.get("RECONCILER_STATE_DIR")
    return _by_state_dir(Path(directory) if directory else DEFAULT_STATE_DIR)


def _by_server(named: str, token: str) -> Client:
    if named.startswith("unix:"):
        return Client(named, socket=Path(named.removeprefix("unix:")))
    address = urlsplit(named)
    if address.scheme not in ("http", "https") or not address.hostname or address.username:
        message = f"--server {quote(named, safe=':/.@-_')} is no address"
        raise CommandError(USAGE, "invalid-server", message, "write http://127.0.0.1:8080, https://... or unix:PATH")
    try:
        _ = address.port
    except ValueError as error:
        raise CommandError(USAGE, "invalid-server", f"--server {named}: {error}") from error
    return Client(named, url=named, token=token)


def _by_state_dir(directory: Path) -> Client:
    path = socket_path(directory)
    try:
        safe = trusted(path)
    except FileNotFoundError:
        safe = True  # no daemon: said when it is asked
    if not safe:
        message = f"{path.parent} belongs to somebody else or is open to others"
        raise CommandError(FAILED, "untrusted-socket", message, "remove it, and start the daemon again")
    return Client(str(directory), socket=path)


def _state_dir_of(file: Path, environ: Mapping[str, str]) -> Path:
    """The state directory of a settings file. Only that counts here: the daemon itself says what else is wrong."""
    from reconciler.settings import load_settings  # noqa: PLC0415 - on use

    settings, problems = load_settings(file, environ)
    if settings is None:
        raise CommandError(FAILED, "invalid-settings", str(problems[0]), "`reconciler run` shows all problems")
    if environ.get("RECONCILER_STATE_DIR"):
        return Path(environ["RECONCILER_STATE_DIR"])
    return settings.state_dir


def actor() -> str:
    """Who gives the order, for the audit log: what the system calls this user, and its machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
