"""The OpenAPI documents of a simulated cluster, made from its types: what the shipped code reads schemas from.

They say what a real server's documents say as far as the tables in `schemas/` hold it: fields, types, lists and maps,
what is kept although it is not named. Descriptions, defaults and limits are left out. Types with a name keep it in the
document as well, so that recursive ones end.

    openapi_index(catalog)["paths"]["apis/apps/v1"]       {"serverRelativeURL": "/openapi/v3/apis/apps/v1?hash=5F0C..."}
    openapi_document(catalog, "apis/apps/v1")             {"openapi": "3.0.0", "components": {"schemas": {...}}, ...}

The hash is that of the document's bytes, as a real server's is.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import orjson

from reconciler.sim.schema import Catalog, Node, Resource, Shape

_SCALARS: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "boolean": {"type": "boolean"},
    "untyped": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
}


def openapi_index(catalog: Catalog) -> dict[str, Any]:
    """Where the documents of each group and version are."""
    return _made(catalog)[0]


def openapi_document(catalog: Catalog, path: str) -> dict[str, Any] | None:
    """The document of a group and version ("api/v1", "apis/apps/v1"); None if nothing of it is served."""
    return _made(catalog)[1].get(path)


# A catalog never changes; a simulated fleet has a few of them, and a story of an upgrade another few.
@lru_cache(maxsize=64)
def _made(catalog: Catalog) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    served: dict[str, list[Resource]] = {}
    for one in catalog.resources:
        served.setdefault(f"apis/{one.api_version}" if one.group else f"api/{one.version}", []).append(one)
    documents = {path: _document(resources) for path, resources in served.items()}
    hashes = {path: hashlib.sha512(orjson.dumps(document)).hexdigest().upper() for path, document in documents.items()}
    paths = {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={named}"} for path, named in hashes.items()}
    return {"paths": paths}, documents


def _document(served: list[Resource]) -> dict[str, Any]:
    naming = _Naming()
    for one in served:
        root = naming.schema_of(one.node)
        marks = [{"group": one.group, "kind": one.kind, "version": one.version}]
        naming.schemas[f"{one.api_version}/{one.kind}"] = {
            **({"allOf": [root]} if "$ref" in root else root),
            "x-kubernetes-group-version-kind": marks,
        }
    info = {"title": "Kubernetes", "version": "simulated"}
    return {"openapi": "3.0.0", "info": info, "paths": {}, "components": {"schemas": naming.schemas}}


class _Naming:
    """One document while it is written."""

    def __init__(self) -> None:
        self.schemas: dict[str, Any] = {}
        self._names: dict[int, str] = {}

    def schema_of(self, node: Node) -> dict[str, Any]:
        """The schema of a type, or a reference to it if it has a name."""
        if not node.name:
            return self._described(node)
        if id(node) not in self._names:
            name = node.name
            while name in self.schemas:
                name += "_"  # A variant's type is called as the one that it was made of.
            self._names[id(node)] = name
            self.schemas[name] = {}
            self.schemas[name] = self._described(node)
        return {"$ref": f"#/components/schemas/{self._names[id(node)]}"}

    def _described(self, node: Node) -> dict[str, Any]:
        if node.shape is Shape.SCALAR:
            if node.scalar == "numeric":
                return {"type": "integer" if node.integer else "number"}
            return dict(_SCALARS[node.scalar])
        if node.shape is Shape.LIST:
            return {"type": "array", "items": self.schema_of(node.element) if node.element is not None else {}}
        if node.shape is Shape.ANY:
            return {}
        schema: dict[str, Any] = {"type": "object"}
        if node.fields:
            schema["properties"] = {name: self.schema_of(below) for name, below in sorted(node.fields.items())}
        if node.struct and node.element is not None:
            schema["x-kubernetes-preserve-unknown-fields"] = True
        elif node.element is not None:
            schema["additionalProperties"] = self.schema_of(node.element)
        return schema
