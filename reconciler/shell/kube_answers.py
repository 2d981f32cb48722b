"""What an API server answers, as values: pages of a list, events of a watch, how a kind is addressed.

Nothing is believed for its shape alone: a list without a resourceVersion, an item without a uid or a line that is no
event is an error, because a fleet must never look empty or whole only because an answer was cut or came from a proxy.

    watch_event(b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}', resource)
    # WatchEvent("BOOKMARK", "7")
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from sys import intern
from typing import Any, NamedTuple

import orjson

from reconciler.core.digest import digest_of
from reconciler.core.model import Manifest, ObjectKey, Reason
from reconciler.shell.kube_errors import READ, GoneError, InvalidError, Outcome, from_status, unexpected_answer

SCHEMA_DOCUMENTS_MAX = 5_000
_GROUP_VERSION = re.compile(r"(api|apis/[a-z0-9.-]{1,253})/v[a-z0-9]{1,60}\Z")
_CONTENT_HASH = re.compile(r"[?&]hash=([0-9A-Fa-f]{128})\Z")


class Resource(NamedTuple):
    """How a kind is addressed."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        """As it stands in manifests: "v1", "apps/v1"."""
        return f"{self.group}/{self.version}" if self.group else self.version


class ObjectVersion(NamedTuple):
    """One row of a metadata list: which state an object is in, without the state."""

    key: ObjectKey
    uid: str
    resource_version: str


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list. `resource_version` is the whole list's: a watch from there misses nothing. `last` is True on
    the page after which the list is complete."""

    resource_version: str
    objects: list[Manifest]
    last: bool


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """ADDED, MODIFIED, DELETED with the object and its key; BOOKMARK has neither, only the version reached."""

    type: str
    resource_version: str
    key: ObjectKey | None = None
    object: Manifest | None = None


@dataclass(frozen=True, slots=True)
class SchemaIndex:
    """Which schemas a cluster served at `read_s` (the adapter's seconds): the hash of each document by its path
    ("apis/apps/v1"), and `digest`, which is equal as long as none of them changes. Empty where it could not be had."""

    read_s: float
    digest: str = ""
    hashes: Mapping[str, str] = field(default_factory=dict)


def schema_index(answer: Mapping[str, Any], read_s: float) -> SchemaIndex:
    """The index in an answer to /openapi/v3. What is not plainly a document of a group and version is left out."""
    paths = answer.get("paths")
    if not isinstance(paths, dict) or not paths:
        return SchemaIndex(read_s)
    hashes = {}
    for path, entry in islice(paths.items(), SCHEMA_DOCUMENTS_MAX):
        url = entry.get("serverRelativeURL") if isinstance(entry, dict) else None
        found = _CONTENT_HASH.search(url) if isinstance(url, str) else None
        if found and _GROUP_VERSION.match(path):
            # Clusters of one kind share these strings: there are thousands of clusters, and few kinds of them.
            hashes[intern(path)] = intern(found.group(1))
    return SchemaIndex(read_s, digest_of(paths), hashes)


def encode(body: Mapping[str, Any]) -> bytes:
    """JSON of `body`. What JSON cannot say (an integer beyond 64 bits) is the manifest's fault, not the server's."""
    try:
        return orjson.dumps(body)
    except (orjson.JSONEncodeError, RecursionError) as error:
        raise InvalidError(Reason("NotEncodable", f"the object cannot be sent as JSON: {error}")) from error


def list_parts(answer: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[Manifest]]:
    """Metadata and items of a list, or of a Table's row objects. What is not plainly a whole list is none."""
    kind, metadata = str(answer.get("kind") or ""), answer.get("metadata")
    if not isinstance(metadata, dict) or not metadata.get("resourceVersion"):
        raise unexpected_answer(f"a list was answered with {kind or 'something'} without a resourceVersion", READ)
    if kind == "Table":
        items: list[Any] = [row.get("object") if isinstance(row, dict) else None for row in answer.get("rows") or []]
    elif kind.endswith("List") and "items" in answer:
        items = [] if answer["items"] is None else answer["items"]
    else:
        raise unexpected_answer(f"a list was answered with {kind or 'something'}", READ)
    if not isinstance(items, list) or not all(isinstance(item, dict) and is_identified(item) for item in items):
        raise unexpected_answer(
            "a list holds an item without name, uid or resourceVersion, or with metadata of another shape", READ
        )
    return metadata, items


def is_identified(manifest: Mapping[str, Any]) -> bool:
    """True if `manifest` says which object it is and in which state, in strings, and its metadata has the shape that
    every API server keeps to: nobody who reads it further has to ask."""
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("namespace", ""), str):
        return False
    entries, generation = metadata.get("managedFields"), metadata.get("generation")
    return (
        all(isinstance(metadata.get(part), str) and metadata[part] for part in ("name", "uid", "resourceVersion"))
        and all(isinstance(metadata.get(part), dict | None) for part in ("labels", "annotations"))
        and (entries is None or (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)))
        and (generation is None or isinstance(generation, int))
    )


def watch_event(line: bytes, resource: Resource) -> WatchEvent:
    """One line of a watch. An ERROR event is raised as what it says."""
    try:
        event = orjson.loads(line)
        kind, value = event["type"], event["object"]
        if kind == "ERROR":
            raise from_status(value, READ)
        metadata = value["metadata"]
        version = str(metadata["resourceVersion"])
        if kind == "BOOKMARK":
            return WatchEvent("BOOKMARK", version)
        if kind in ("ADDED", "MODIFIED", "DELETED") and is_identified(value):
            key = ObjectKey(resource.group, resource.kind, metadata.get("namespace") or "", metadata["name"])
            return WatchEvent(kind, version, key, value)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise unexpected_answer(f"a watch of {resource.kind} sent a line that is no event", READ) from error
    raise unexpected_answer(
        f"a watch of {resource.kind} sent an event that is none of its types, or of no object: {str(kind)[:40]}", READ
    )


def not_whole(message: str) -> GoneError:
    """The refusal of a list that cannot be trusted to be all there is."""
    return GoneError(Reason("ListNotWhole", message), outcome=Outcome.TEMPORARY)
