"""How a live value stands to a declared one as a whole, where nobody else may add to it but the server may rewrite it.

Two values that mean the same may be written differently (the quantities `1Gi` and `1073741824`), and only the server
knows whether it rewrites one as the other. So there are three answers, not two: equal, different, and doubtful.

    >>> relation("a", "b"), relation(1.0, 1)
    (<Relation.DIFFERENT: 'different'>, <Relation.EQUAL: 'equal'>)
    >>> relation("", "default-scheduler"), relation("", "default-scheduler", built_in=True)
    (<Relation.DIFFERENT: 'different'>, <Relation.DOUBTFUL: 'doubtful'>)
"""

from __future__ import annotations

import enum
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping
from typing import Any

from reconciler.core.built_in_kinds import TELLS_EMPTY_FROM_ABSENT, in_quantities, is_filled_in, same_form
from reconciler.core.values import is_zero, quantity, strictly_equal


class Relation(enum.StrEnum):
    """How two values stand to each other, best first."""

    EQUAL = "equal"
    DOUBTFUL = "doubtful"
    DIFFERENT = "different"


def relation(desired: Any, live: Any, *, built_in: bool = False, place: tuple[Any, ...] = ()) -> Relation:
    """How `live` stands to `desired`. What the server may have done to it is doubtful, what it never does is different;
    in a built-in kind (`place` says where in it) the server does more."""
    if type(desired) is dict and type(live) is dict:
        return _map_relation(desired, live, built_in, place)
    if type(desired) is list and type(live) is list and len(desired) == len(live):
        parts = enumerate(zip(desired, live, strict=True))
        return _worst(relation(one, other, built_in=built_in, place=(*place, index)) for index, (one, other) in parts)
    if strictly_equal(desired, live):
        return Relation.EQUAL
    if _is_number(desired) and _is_number(live):
        return _number_relation(desired, live, built_in, place)
    if is_zero(desired) and is_zero(live):
        return Relation.DOUBTFUL
    return _rewritten(desired, live, place) if built_in else Relation.DIFFERENT


def _rewritten(desired: Any, live: Any, place: tuple[Any, ...]) -> Relation:
    """In a built-in kind a quantity is written anew, and what is declared empty may become the default."""
    number = quantity(desired)
    if number is not None and number == quantity(live):
        return Relation.EQUAL if in_quantities(place) and same_form(desired, live) else Relation.DOUBTFUL
    return Relation.DOUBTFUL if _may_become_default(desired, place) else Relation.DIFFERENT


def _may_become_default(desired: Any, place: tuple[Any, ...]) -> bool:
    """False stays false everywhere: a field whose default is true tells it from absent."""
    return is_zero(desired) and desired is not False and not (place and place[-1] in TELLS_EMPTY_FROM_ABSENT)


def _number_relation(desired: float, live: float, built_in: bool, place: tuple[Any, ...]) -> Relation:
    """1.0 and 1 are one number, and a custom resource holds it as 1; a built-in kind may refuse one of them."""
    if desired == live:
        return Relation.DOUBTFUL if built_in else Relation.EQUAL
    return Relation.DOUBTFUL if built_in and _may_become_default(desired, place) else Relation.DIFFERENT


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _map_relation(desired: dict[str, Any], live: dict[str, Any], built_in: bool, place: tuple[Any, ...]) -> Relation:
    """A key that only live has may be a default: doubtful, unless it is known to be one. A key that only desired has is
    missing; a built-in kind may have dropped it."""
    found = Relation.EQUAL
    for name, value in live.items():
        if name not in desired and not (built_in and is_filled_in((*place, name), value)):
            found = Relation.DOUBTFUL
    for name, value in desired.items():
        if name in live:
            part = relation(value, live[name], built_in=built_in, place=(*place, name))
        else:
            part = _missing(name, value) if built_in else Relation.DIFFERENT
        found = _worst((found, part))
        if found is Relation.DIFFERENT:
            break
    return found


def _missing(name: str, value: Any) -> Relation:
    """A field that only desired has: a built-in kind leaves out an empty list; it may drop others."""
    return Relation.EQUAL if value == [] or (name, value) == ("matchLabels", {}) else Relation.DOUBTFUL


_RELATION_ORDER = list(Relation)


def _worst(parts: Iterable[Relation]) -> Relation:
    return max(parts, key=_RELATION_ORDER.index, default=Relation.EQUAL)


def encoded_field(manifest: Mapping[str, Any]) -> str:
    """The field of which every value is bytes in base64, which the server decodes and encodes again; "" if none is."""
    if manifest.get("apiVersion") != "v1":
        return ""
    return {"Secret": "data", "ConfigMap": "binaryData"}.get(str(manifest.get("kind")), "")


def encoded_relation(desired: Any, live: Any) -> Relation:
    """How two base64 texts stand to each other. Line breaks are nothing for certain; of the rest only bytes count."""
    if not (isinstance(desired, str) and isinstance(live, str)):
        return relation(desired, live)
    if desired.replace("\r", "").replace("\n", "") == live:
        return Relation.EQUAL
    try:
        return Relation.DOUBTFUL if b64decode(desired) == b64decode(live) else Relation.DIFFERENT
    except (Base64Error, ValueError):
        return Relation.DIFFERENT
