"""Comparing plain JSON values the way Kubernetes means them, and naming places inside them.

Python says `True == 1 == 1.0`; Kubernetes does not. Two values that mean the same may still be written differently
(the quantities `1000m` and `1`), and only the server knows whether it rewrites one as the other. So there are three
answers, not two: equal, different, and doubtful.

    >>> relation(1, 1), relation("a", "b"), relation("1000m", "1")
    (<Relation.EQUAL: 'equal'>, <Relation.DIFFERENT: 'different'>, <Relation.DOUBTFUL: 'doubtful'>)
    >>> pointer(("metadata", "annotations", "a/b~c"))
    '/metadata/annotations/a~1b~0c'
"""

from __future__ import annotations

import enum
import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

#: Where in an object: field names and list indices.
Path = tuple[str | int, ...]


class Relation(enum.StrEnum):
    """How two values stand to each other, best first."""

    EQUAL = "equal"
    DOUBTFUL = "doubtful"
    DIFFERENT = "different"


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


def relation(desired: Any, live: Any) -> Relation:
    """How `live` stands to `desired` as *whole* values: nobody else may add to them, but the server may default and
    rewrite. What it may have done is doubtful, what it never does is different."""
    if type(desired) is dict and type(live) is dict:
        return _map_relation(desired, live)
    if type(desired) is list and type(live) is list:
        if len(desired) != len(live):
            return Relation.DIFFERENT
        return _worst(relation(one, other) for one, other in zip(desired, live, strict=True))
    if strictly_equal(desired, live):
        return Relation.EQUAL
    wanted = quantity(desired)
    if wanted is not None and wanted == quantity(live):
        return Relation.DOUBTFUL
    return Relation.DOUBTFUL if is_zero(desired) and is_zero(live) else Relation.DIFFERENT


def _map_relation(desired: dict[str, Any], live: dict[str, Any]) -> Relation:
    """A key only live has may be a default: doubtful. A key only desired has is missing, unless it says nothing."""
    found = Relation.EQUAL if desired.keys() >= live.keys() else Relation.DOUBTFUL
    for name, value in desired.items():
        if name in live:
            part = relation(value, live[name])
        else:
            part = Relation.DOUBTFUL if is_zero(value) else Relation.DIFFERENT
        found = _worst((found, part))
        if found is Relation.DIFFERENT:
            break
    return found


_RELATION_ORDER = list(Relation)


def _worst(parts: Iterable[Relation]) -> Relation:
    return max(parts, key=_RELATION_ORDER.index, default=Relation.EQUAL)


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
