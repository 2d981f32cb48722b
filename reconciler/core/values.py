"""Plain JSON values the way Kubernetes means them, and naming places inside them.

Python says `True == 1 == 1.0`; Kubernetes does not. And two quantities may be one number, written differently.

    >>> strictly_equal(True, 1), quantity("1000m") == quantity("1")
    (False, True)
    >>> pointer(("metadata", "annotations", "a/b~c"))
    '/metadata/annotations/a~1b~0c'
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from typing import Any

#: Where in an object: field names and list indices.
Path = tuple[str | int, ...]


def strictly_equal(left: Any, right: Any) -> bool:
    """Equal in value and in JSON type, all the way down: True is not 1, and 1 is not 1.0."""
    kind = type(left)
    if kind is not type(right):
        return False
    if kind is dict:
        if len(left) != len(right):
            return False
        return all(name in right and strictly_equal(value, right[name]) for name, value in left.items())
    if kind is list:
        return len(left) == len(right) and all(map(strictly_equal, left, right))
    return bool(left == right)


_QUANTITY = re.compile(
    r"([+-]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30}))(?:([eE][+-]?\d{1,2})|([KMGTPE]i|[numkMGTPE]))?\Z"
)
_DECIMAL_POWERS = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY_POWERS = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


def quantity(value: Any) -> Decimal | None:
    """The number a Kubernetes quantity stands for ("250m", "1Gi", 2); None if `value` is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    match = _QUANTITY.match(str(value))
    if match is None:
        return None
    digits, exponent, suffix = match.groups()
    number = Decimal(digits + (exponent or ""))
    if suffix in _BINARY_POWERS:
        return number * Decimal(1024 ** _BINARY_POWERS[suffix])
    return number.scaleb(_DECIMAL_POWERS.get(suffix or "", 0))


def is_zero(value: Any) -> bool:
    """A value the API server may leave out when it stores an object: null, false, 0, "", [] and {}."""
    return value is None or value is False or (type(value) in (int, float, str, list, dict) and not value)


def pointer(path: Path) -> str:
    """`path` as a JSON Pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


#: Messages and status texts are cut here: a hostile or chatty status must not fill pages, logs and forge statuses.
TEXT_LIMIT = 300


def clean_text(text: Any, limit: int = TEXT_LIMIT) -> str:
    """Text that came from a cluster, fit for terminal, page and commit status: one line, no control or formatting
    characters (ANSI colours, bidirectional overrides), at most `limit` characters."""
    raw = text if isinstance(text, str) else str(text)
    raw = _ESCAPES.sub("", raw[: limit * 8])
    kept = "".join(_shown(character) for character in raw)
    line = " ".join(kept.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])|\x9b[0-?]*[ -/]*[@-~]")


def _shown(character: str) -> str:
    if character.isascii():
        return character if character.isprintable() else " "
    return "" if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} else character
