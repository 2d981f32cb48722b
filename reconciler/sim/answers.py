"""Answers of the simulated API server: objects, lists in pages, tables, metadata only.

Objects are answered with the bytes made when they were stored; a list joins them. A page's continue token names the
revision the list began at, and later pages show the objects as they were then, by undoing newer changes from the
history; a token older than the history is refused with 410, as the real server does.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from reconciler.sim import problems
from reconciler.sim.schema import Resource
from reconciler.sim.store import Store, Stored
from reconciler.sim.watch import View

Row = tuple[tuple[str, str], Stored]
GONE = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


def continue_token(revision: int, start: str) -> str:
    """An opaque token: go on after `start` ("namespace/name") of the list at `revision`; -1 means as it is now."""
    content = orjson.dumps({"v": "meta.k8s.io/v1", "rv": revision, "start": start + "\0"})
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def read_token(token: str) -> tuple[int, str]:
    """(revision, start). 400 when it is not one of ours."""
    try:
        content = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        return int(content["rv"]), str(content["start"]).rstrip("\0")
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise problems.bad_request(f"invalid continue token: continue key is not valid: {error}") from error


def objects_at(store: Store, storage: str, revision: int) -> dict[tuple[str, str], Stored]:
    """The objects of a kind as they were at a revision. 410 when the history no longer says."""
    shelf = store.shelf(storage)
    if revision < 0 or revision >= store.revision:
        return shelf.objects
    if revision < shelf.horizon:
        raise problems.expired(GONE)
    objects = dict(shelf.objects)
    for event in reversed(shelf.history):
        if event.revision <= revision:
            break
        if event.before is None:
            objects.pop((event.namespace, event.name), None)
        else:
            objects[(event.namespace, event.name)] = event.before
    return objects


def select(objects: Mapping[tuple[str, str], Stored], view: View) -> list[Row]:
    """The objects in view, in the server's order."""
    return sorted(
        ((key, stored) for key, stored in objects.items() if view.has(key[0], key[1], stored)), key=lambda row: row[0]
    )


class Page:
    """A list, or one page of it."""

    def __init__(
        self, store: Store, storage: str, view: View, limit: int, token: str = "", exact: int | None = None
    ) -> None:
        """`token` goes on with an earlier page, `exact` asks for the list as it was at a revision."""
        revision, start = read_token(token) if token else (exact or store.revision, "")
        try:
            rows = select(objects_at(store, storage, revision), view)
        except problems.ApiError as error:
            if not token:
                raise problems.expired("The resourceVersion for the provided list is too old.") from error
            error.body["metadata"] = {"continue": continue_token(-1, start)}
            raise
        if token:
            after = tuple(start.split("/", 1)) if "/" in start else ("", start)
            rows = [row for row in rows if row[0] > after]
        shown = rows[:limit] if limit else rows
        self.metadata: dict[str, Any] = {"resourceVersion": str(store.revision if revision < 0 else revision)}
        if len(shown) < len(rows):
            (namespace, name), _ = shown[-1]
            self.metadata["continue"] = continue_token(revision, f"{namespace}/{name}")
            self.metadata["remainingItemCount"] = len(rows) - len(shown)
        self.rows = [stored for _, stored in shown]


def list_body(resource: Resource, page: Page) -> bytes:
    """A list of whole objects."""
    head = orjson.dumps({"kind": resource.list_kind, "apiVersion": resource.api_version, "metadata": page.metadata})
    # Items of built-in kinds name neither kind nor apiVersion, those of custom kinds do.
    items = [stored.raw if resource.custom else stored.raw_item for stored in page.rows]
    return head[:-1] + b',"items":[' + b",".join(items) + b"]}"


def metadata_only(stored: Stored) -> dict[str, Any]:
    """A PartialObjectMetadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": stored.value["metadata"]}


def metadata_list_body(page: Page) -> bytes:
    """A list of metadata."""
    items = [metadata_only(stored) for stored in page.rows]
    head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
    return orjson.dumps({**head, "metadata": page.metadata, "items": items})


# ------------------------------------------------------------------------------------------------------------ tables

Cell = Callable[[dict[str, Any], float], Any]


def _column(name: str, kind: str = "string", form: str = "", priority: int = 0) -> dict[str, Any]:
    return {"name": name, "type": kind, "format": form, "description": "", "priority": priority}


def age(timestamp: str, now: float) -> str:
    """How long ago, as tables show it: 5s, 3m20s, 4h10m, 2d3h, 30d."""
    began = datetime.fromisoformat(timestamp).replace(tzinfo=UTC).timestamp()
    seconds = max(0, int(now - began))
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d"


def _name(value: dict[str, Any], now: float) -> Any:  # noqa: ARG001 - every cell takes the time
    return value["metadata"]["name"]


def _age(value: dict[str, Any], now: float) -> Any:
    return age(value["metadata"]["creationTimestamp"], now)


def _data(value: dict[str, Any], now: float) -> Any:  # noqa: ARG001 - every cell takes the time
    return len(value.get("data") or {}) + len(value.get("binaryData") or {})


def _type(value: dict[str, Any], now: float) -> Any:  # noqa: ARG001 - every cell takes the time
    return value.get("type")


_NAME = (_column("Name", form="name"), _name)
_AGE = (_column("Age"), _age)
BUILT_IN_TABLES: dict[tuple[str, str], tuple[tuple[dict[str, Any], Cell], ...]] = {
    ("", "ConfigMap"): (_NAME, (_column("Data"), _data), _AGE),
    ("", "Secret"): (_NAME, (_column("Type"), _type), (_column("Data"), _data), _AGE),
    ("", "ServiceAccount"): (_NAME, _AGE),
}


def _path_cell(path: str) -> Cell:
    """A cell of a CRD's printer column: a JSON path of plain fields."""
    steps = path.lstrip(".").split(".")
    if any(sign in path for sign in "[]*?@\\"):
        raise problems.not_simulated(f"the printer column {path}")

    def cell(value: dict[str, Any], now: float) -> Any:  # noqa: ARG001 - every cell takes the time
        found: Any = value
        for step in steps:
            if not isinstance(found, dict):
                return None
            found = found.get(step)
        return found

    def age_cell(value: dict[str, Any], now: float) -> Any:
        found = cell(value, now)
        return age(found, now) if isinstance(found, str) else "<unknown>"

    return age_cell if path == ".metadata.creationTimestamp" else cell


def _columns(resource: Resource) -> tuple[tuple[dict[str, Any], Cell], ...]:
    if not resource.custom:
        found = BUILT_IN_TABLES.get((resource.group, resource.kind))
        if found is None:
            raise problems.not_simulated(f"tables of {resource.kind}")
        return found
    if not resource.columns:
        return (_NAME, _AGE)
    declared = [
        (_column(one["name"], one["type"], one.get("format", ""), one.get("priority", 0)), _path_cell(one["jsonPath"]))
        for one in resource.columns
    ]
    return (_NAME, *declared)


def table_body(resource: Resource, page: Page, include: str, now: float) -> bytes:
    """A Table; `include` is what each row carries: None, Metadata (the default) or Object."""
    if include not in ("", "None", "Metadata", "Object"):
        raise problems.bad_request(f'unrecognized includeObject value: "{include}"')
    columns = _columns(resource)
    rows = []
    for stored in page.rows:
        carried: Any = None if include == "None" else stored.value if include == "Object" else metadata_only(stored)
        rows.append({"cells": [cell(stored.value, now) for _, cell in columns], "object": carried})
    definitions = [definition for definition, _ in columns]
    head = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": page.metadata}
    return orjson.dumps({**head, "columnDefinitions": definitions, "rows": rows})
