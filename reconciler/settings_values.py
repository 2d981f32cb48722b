"""Kinds of settings: what a value may be, and what it becomes.

A reader takes the value as written and returns what it means, or raises BadValueError with a sentence and a hint. From
the environment everything is text; `from_text` makes of it what the file would have held.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.core.formats import duration_s, is_dns_label
from reconciler.core.schema import suggest
from reconciler.shell.git_urls import KNOWN_PROTOCOLS, check_ref
from reconciler.shell.identity import wrong_group, wrong_user
from reconciler.shell.logs import FORMATS, LEVELS
from reconciler.shell.ports import SourceError

_DURATION_MIN_S, _DURATION_MAX_S = 0.1, 7 * 86400.0
_RATE_MAX = 10_000.0
#: As a tenant's name: its writes are made with the kubeconfig's own identity.
OWN_IDENTITY = "none"
TENANT_HINT = "name a user or group of the tenant's own, as reconciler:tenant:payments"
_KIND = re.compile(r"[A-Z][A-Za-z0-9]{0,62}(\.[a-z0-9][a-z0-9.-]{0,250})?")


class BadValueError(Exception):
    """A value that a setting cannot have. `hint` says what it could have."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the API listens: `host` is a name or an address without brackets, port 0 is any free one."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """True if nobody on another machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def _text(value: Any, _base: Path) -> str:
    if not isinstance(value, str):
        raise BadValueError(f"not a string: {_shown(value)}", "quote it")
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise BadValueError("control characters in a string")
    return value


def _path(value: Any, base: Path) -> Path | None:
    text = _text(value, base)
    return base / text if text else None


def _label(value: Any, base: Path) -> str:
    text = _text(value, base)
    if wrong := is_dns_label(text):
        raise BadValueError(wrong)
    return text


def _ref(value: Any, base: Path) -> str:
    try:
        return check_ref(_text(value, base))
    except SourceError as error:
        raise BadValueError(error.reason.message) from None


def _user(value: Any, base: Path) -> str:
    text = _text(value, base)
    if not text or ":" in text or not text.isascii():
        raise BadValueError("not a user name: it is not empty and has no ':'")
    return text


def _duration(value: Any, _base: Path) -> float:
    seconds = duration_s(value)
    if seconds is None:
        hint = f"with a unit: {value}s, {value}m" if isinstance(value, int | float) else "write 30s, 5m or 1h30m"
        raise BadValueError(f"not a duration: {_shown(value)}", hint)
    if not _DURATION_MIN_S <= seconds <= _DURATION_MAX_S:
        raise BadValueError(f"not between 100ms and 7d: {_shown(value)}")
    return seconds


def _boolean(value: Any, _base: Path) -> bool:
    if not isinstance(value, bool):
        raise BadValueError(f"neither true nor false: {_shown(value)}")
    return value


def _rate(value: Any, _base: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _RATE_MAX:
        raise BadValueError(f"not a number above 0 and up to {_RATE_MAX:g}: {_shown(value)}")
    return float(value)


def _choice(choices: tuple[str, ...]) -> Callable[[Any, Path], str]:
    def read(value: Any, _base: Path) -> str:
        if value not in choices:
            hint = suggest(value, choices) if isinstance(value, str) else ""
            raise BadValueError(f"not one of {', '.join(choices)}: {_shown(value)}", hint)
        return str(value)

    return read


def _listen(value: Any, base: Path) -> Listen | None:
    text = _text(value, base)
    if text == "none":
        return None
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})", text)
    if not match or int(match[3]) > 65535:
        raise BadValueError(f"not host:port: {_shown(value)}", "write 127.0.0.1:8080, [::1]:8080 or none")
    return Listen(match[1] or match[2], int(match[3]))


def _items(value: Any, base: Path, read: Callable[[str], str]) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise BadValueError(f"not a list: {_shown(value)}")
    items = [read(_text(item, base)) for item in value]
    if len(set(items)) != len(items):
        raise BadValueError("an item stands twice in the list")
    return tuple(items)


def _protocols(value: Any, base: Path) -> tuple[str, ...]:
    def read(item: str) -> str:
        if item not in KNOWN_PROTOCOLS:
            raise BadValueError(f"not a protocol: {_shown(item)}", suggest(item, KNOWN_PROTOCOLS))
        return item

    return _items(value, base, read)


def _tenant(value: Any, base: Path) -> str:
    text = _text(value, base)
    if text and text != OWN_IDENTITY and (wrong := wrong_user(text)):
        raise BadValueError(wrong, TENANT_HINT)
    return text


def _groups(value: Any, base: Path) -> tuple[str, ...]:
    def read(item: str) -> str:
        if wrong := wrong_group(item):
            raise BadValueError(wrong, TENANT_HINT)
        return item

    return _items(value, base, read)


def _kinds(value: Any, base: Path) -> tuple[str, ...]:
    def read(item: str) -> str:
        if not _KIND.fullmatch(item):
            raise BadValueError(f"not a kind: {_shown(item)}", "write ClusterRole.rbac.authorization.k8s.io")
        return item

    return _items(value, base, read)


#: Readers by kind: (value as written, directory that relative paths start from) -> what it means.
KINDS: dict[str, Callable[[Any, Path], Any]] = {
    "text": _text,
    "path": _path,
    "label": _label,
    "ref": _ref,
    "user": _user,
    "duration": _duration,
    "boolean": _boolean,
    "rate": _rate,
    "log-format": _choice(FORMATS),
    "log-level": _choice(LEVELS),
    "listen": _listen,
    "protocols": _protocols,
    "kinds": _kinds,
    "tenant": _tenant,
    "groups": _groups,
}


def from_text(kind: str, text: str) -> Any:
    """What the file would have held for `text` of an environment variable."""
    if kind == "boolean":
        return {"true": True, "false": False}.get(text.lower(), text)
    if kind == "rate":
        try:
            return float(text)
        except ValueError:
            return text
    return text


def _shown(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"
