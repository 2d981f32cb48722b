"""JSON patches (RFC 6902), as clients send them and as mutating webhooks answer with them.

json_patch({"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}])      # {"a": [1, 2]}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconciler.sim.typed import same


class PatchError(Exception):
    """The patch does not fit the document."""


def json_patch(document: Any, operations: Sequence[Any]) -> Any:
    """The document after all operations; the given one is not modified. PatchError where one does not fit."""
    try:
        for operation in operations:
            document = _apply(document, operation)
    except (AttributeError, KeyError) as error:
        raise PatchError(f"not an operation: {error}") from error
    return document


def _apply(document: Any, operation: Any) -> Any:
    kind, path = operation.get("op"), tokens(operation["path"])
    shown = operation["path"]
    if kind == "test":
        present, value = _find(document, path)
        if not same(value if present else None, operation.get("value")):
            raise PatchError(f"testing value {shown} failed")
        return document
    if kind == "remove":
        return _edit(document, path, shown, kind, None)
    if kind in ("add", "replace"):
        return _edit(document, path, shown, kind, operation.get("value"))
    if kind in ("move", "copy"):
        source = tokens(operation["from"])
        present, value = _find(document, source)
        # Of a key that is not there null is copied, as the server's own library has it.
        if not present and (kind == "move" or not isinstance(_find(document, source[:-1])[1], dict)):
            raise PatchError(f"{kind} operation does not apply: doc is missing from path: {operation['from']}")
        if kind == "move":
            document = _edit(document, source, operation["from"], "remove", None)
        return _edit(document, path, shown, "add", value)
    raise PatchError(f"Unexpected kind: {kind}")


def tokens(pointer: str) -> list[str]:
    """The parts of a JSON pointer."""
    if not pointer:
        return []
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.removeprefix("/").split("/")]


def _find(document: Any, path: Sequence[str]) -> tuple[bool, Any]:
    """(whether it is there, the value)."""
    for part in path:
        if isinstance(document, dict) and part in document:
            document = document[part]
        elif isinstance(document, list) and part.isdigit() and int(part) < len(document):
            document = document[int(part)]
        else:
            return False, None
    return True, document


def _edit(document: Any, path: Sequence[str], shown: str, kind: str, value: Any) -> Any:
    """A copy of the document in which one place is added, replaced or removed; what is beside it is shared."""
    if not path:
        return value
    head, rest = path[0], path[1:]
    missing = PatchError(f'{kind} operation does not apply: doc is missing path: "{shown}": missing value')
    if isinstance(document, dict):
        # A replacement of what is not there adds it, as the server's own library has it.
        if (rest or kind == "remove") and head not in document:
            raise missing
        if rest:
            return {**document, head: _edit(document[head], rest, shown, kind, value)}
        if kind == "remove":
            return {key: part for key, part in document.items() if key != head}
        return {**document, head: value}
    if isinstance(document, list):
        return _edit_list(document, head, rest, shown, kind, value, missing)
    raise missing


def _edit_list(
    items: list[Any], head: str, rest: Sequence[str], shown: str, kind: str, value: Any, missing: PatchError
) -> list[Any]:
    at_end = head == "-" and kind == "add" and not rest
    if not at_end and not head.isdigit():
        raise missing
    index = len(items) if at_end else int(head)
    if index > len(items) or (index == len(items) and (rest or kind != "add")):
        raise missing
    before, after = items[:index], items[index:]
    if rest:
        return [*before, _edit(items[index], rest, shown, kind, value), *after[1:]]
    if kind == "add":
        return [*before, value, *after]
    return [*before, *([] if kind == "remove" else [value]), *after[1:]]
