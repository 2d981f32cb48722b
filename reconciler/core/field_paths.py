"""Field paths: how a document names a place inside an object, and who the server says wrote what stands there.

Two spellings, as people copy them from `diff` or from other tools. A list item is named by its key, never by its
position, which moves; `*` is every item or every name.

    >>> parse_field_path("spec.template.spec.containers[name=main].image").steps[-2:]
    (Key(fields=(('name', 'main'),)), 'image')
    >>> parse_field_path("/spec/replicas").steps
    ('spec', 'replicas')
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from reconciler.core.diff_walk import Item, Place
from reconciler.core.managed_fields import (
    IDENTITY,
    METADATA_IDENTITY,
    FieldsV1,
    entries_of,
    key_fields,
    our_entries,
    set_value,
)

PATH_LENGTH_MAX = 512
EVERY = "*"

_NAME = re.compile(r"[^.\[\]]+")
_BRACKET = re.compile(r"\[([^\[\]]+)\]")


class Key(NamedTuple):
    """One item of a list, told apart by these fields, with their values as text."""

    fields: tuple[tuple[str, str], ...]

    def matches(self, pairs: Mapping[str, Any]) -> bool:
        """True if an item with the key fields `pairs` is the one."""
        return all(name in pairs and str(pairs[name]) == value for name, value in self.fields)


FieldStep = str | Key


@dataclass(frozen=True, slots=True)
class FieldPath:
    """One place, or with `*` several. `text` is how it was written."""

    steps: tuple[FieldStep, ...]
    text: str


class FieldPathError(ValueError):
    """What is wrong with a path, as a phrase."""


def parse_field_path(text: str) -> FieldPath:
    """`text` as a path. Raises FieldPathError."""
    if not text.strip() or len(text) > PATH_LENGTH_MAX:
        raise FieldPathError(f"a path has 1 to {PATH_LENGTH_MAX} characters")
    steps = tuple(_pointer_steps(text) if text.startswith("/") else _display_steps(text))
    refused = _refused(steps)
    if refused:
        raise FieldPathError(refused)
    return FieldPath(steps, text)


def field_path_problem(value: Any) -> str:
    """What is wrong with `value` as a path, "" if nothing is: a format of the schemas."""
    if not isinstance(value, str):
        return "not a path"
    try:
        parse_field_path(value)
    except FieldPathError as error:
        return str(error)
    return ""


def _pointer_steps(text: str) -> Iterator[FieldStep]:
    for part in text.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if name.isdigit():
            raise FieldPathError(f"item {name} of a list may become another: write its key, as in [name=main]")
        if name.startswith("[") and name.endswith("]"):
            yield _key(name[1:-1])
        elif name:
            yield name
        else:
            raise FieldPathError("an empty name in the path")


def _display_steps(text: str) -> Iterator[FieldStep]:
    at = 0
    while at < len(text):
        bracket = _BRACKET.match(text, at)
        if bracket is not None:
            inner = bracket[1]
            if inner.isdigit():
                raise FieldPathError(f"item {inner} of a list may become another: write its key, as in [name=main]")
            yield _key(inner) if "=" in inner else inner
            at = bracket.end()
        else:
            name = _NAME.match(text, at)
            if name is None:
                raise FieldPathError(f"not a path from character {at + 1} on")
            yield name[0]
            at = name.end()
        if at < len(text) and text[at] == ".":
            at += 1
            if at == len(text):
                raise FieldPathError("a path does not end with a dot")


def _key(inner: str) -> Key:
    pairs = [part.partition("=") for part in inner.split(",")]
    if not all(name and equals for name, equals, _ in pairs):
        raise FieldPathError(f"[{inner}] is not a key: write it as in [name=main]")
    return Key(tuple(sorted((name, value) for name, _, value in pairs)))


def _refused(steps: tuple[FieldStep, ...]) -> str:
    """Paths that would take in the whole object, or what it is known by."""
    first = steps[0]
    if len(steps) == 1 and first in ("spec", "metadata", EVERY):
        return "it covers the whole object"
    if first in IDENTITY:
        return "it says which object this is"
    if first == "status":
        return "status is never compared"
    if first == "metadata":
        if steps[1] in METADATA_IDENTITY or steps[1] == EVERY:
            return "it says which object this is"
        if steps[1] in ("labels", "annotations") and (len(steps) == 2 or steps[2] == EVERY):
            return "it covers the marks by which we know our objects: name the label or annotation"
        if len(steps) > 2 and isinstance(steps[2], str) and steps[2].startswith("reconciler.dev/"):
            return "it is the reconciler's own"
    return ""


# ---- who wrote it --------------------------------------------------------------------------------------------------


class Writer(NamedTuple):
    """Who the server records as the owner of a field. `time` is RFC 3339, "" where the server gave none."""

    manager: str
    operation: str
    subresource: str
    time: str


def writers_of(live: Mapping[str, Any], place: Place, but: str) -> tuple[Writer, ...]:
    """Managers other than `but` that own `place` of `live` or something inside it, the latest first."""
    found = [
        _writer(entry)
        for entry in entries_of(live)
        if entry.get("manager") != but
        and entry.get("subresource") != "status"
        and isinstance(entry.get("fieldsV1"), dict)
        and _holds(entry["fieldsV1"], place)
    ]
    return tuple(sorted(found, key=lambda writer: writer.time, reverse=True))


def is_applied_at(live: Mapping[str, Any], place: Place, manager: str) -> bool:
    """True if the server records that `manager` applied `place` of `live`, or something inside it."""
    return any(
        isinstance(entry.get("fieldsV1"), dict) and _holds(entry["fieldsV1"], place)
        for entry in our_entries(live, manager)
    )


def last_writer(live: Mapping[str, Any], but: str) -> Writer | None:
    """The manager other than `but` that wrote last to anything but the status; None if there is none."""
    others = [
        _writer(entry)
        for entry in entries_of(live)
        if entry.get("manager") != but and entry.get("subresource") != "status"
    ]
    return max(others, key=lambda writer: writer.time, default=None)


def _writer(entry: Mapping[str, Any]) -> Writer:
    return Writer(
        str(entry.get("manager") or ""),
        str(entry.get("operation") or ""),
        str(entry.get("subresource") or ""),
        str(entry.get("time") or ""),
    )


def _holds(fields: FieldsV1, place: Place) -> bool:
    node = fields
    for step in place:
        if node is not fields and not any(name != "." for name in node):
            return True  # a leaf: the whole value is theirs
        below = _below(node, step)
        if below is None:
            return False
        node = below
    return True


def _below(node: FieldsV1, step: str | Item) -> FieldsV1 | None:
    if isinstance(step, str):
        below = node.get("f:" + step)
        return below if isinstance(below, dict) else None
    for name, below in node.items():
        if not isinstance(below, dict):
            continue
        if name.startswith("k:"):
            pairs = key_fields(name)
            if pairs is not None and ",".join(f"{field}={value}" for field, value in pairs) == step.label:
                return below
        elif name.startswith("v:"):
            value = set_value(name)
            if value is not None and str(value[1]) == step.label:
                return below
    return None
