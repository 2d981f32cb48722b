"""Discovery: the documents in which an API server says what it serves."""

from __future__ import annotations

from typing import Any

from reconciler.sim.openapi import openapi_document, openapi_index
from reconciler.sim.schema import Catalog, Resource

VERSION = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.3+reconciler-simulated",
    "gitCommit": "",
    "gitTreeState": "",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "simulated",
}
HEALTH_PATHS = ("/healthz", "/livez", "/readyz")


def document(catalog: Catalog, path: str) -> dict[str, Any] | None:
    """The document at this path; None when there is none."""
    parts = path.strip("/").split("/")
    if path == "/version":
        return VERSION
    if path == "/openapi/v3":
        return openapi_index(catalog)
    if path.startswith("/openapi/v3/"):
        return openapi_document(catalog, path.removeprefix("/openapi/v3/"))
    if parts == ["api"]:
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    if parts == ["apis"]:
        groups = [_group(catalog, group) for group in catalog.groups if group]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    if parts[0] == "api" and len(parts) == 2:
        return _resources(catalog, "", parts[1])
    if parts[0] == "apis" and len(parts) == 2 and parts[1] in catalog.groups:
        return {"kind": "APIGroup", "apiVersion": "v1", **_group(catalog, parts[1])}
    if parts[0] == "apis" and len(parts) == 3:
        return _resources(catalog, parts[1], parts[2])
    return None


def _group(catalog: Catalog, group: str) -> dict[str, Any]:
    versions = sorted({one.version for one in catalog.resources if one.group == group}, reverse=True)
    listed = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": listed, "preferredVersion": listed[0]}


def _resources(catalog: Catalog, group: str, version: str) -> dict[str, Any] | None:
    served = [one for one in catalog.resources if (one.group, one.version) == (group, version)]
    if not served:
        return None
    entries: list[dict[str, Any]] = []
    for one in served:
        entries.append(_entry(one))
        entries += [_subresource(one, name) for name in one.subresources if name in ("status", "scale")]
    body: dict[str, Any] = {"kind": "APIResourceList", "groupVersion": served[0].api_version, "resources": entries}
    return body if not group else {"apiVersion": "v1", **body}


def _entry(resource: Resource) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    return entry


def _subresource(resource: Resource, name: str) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": f"{resource.plural}/{name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": ["get", "patch", "update"],
    }
    if name == "scale":
        entry |= {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    return entry
