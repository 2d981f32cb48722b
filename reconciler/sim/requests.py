"""Requests of the simulated API server, taken apart: which resource, which options, what body.

parse_path("/apis/apps/v1/namespaces/shop/deployments/web/status")
# Address("apps", "v1", "deployments", "shop", "web", "status")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from reconciler.core import yaml_kube
from reconciler.shell.transport import Request
from reconciler.sim import problems
from reconciler.sim.problems import unsupported_value
from reconciler.sim.writes import Options

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
PATCHES = (JSON_PATCH, MERGE, STRATEGIC, APPLY)
ACCEPTED = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor")


@dataclass(frozen=True, slots=True)
class Address:
    """A path below /api or /apis. Empty parts are absent."""

    group: str
    version: str
    plural: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""


@lru_cache(maxsize=16384)
def parse_path(path: str) -> Address | None:
    """The address of a resource, a group's or a version's discovery document; None for other paths."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) >= 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 2:
        group, version, rest = parts[1], parts[2] if len(parts) > 2 else "", parts[3:]
    else:
        return None
    namespace = ""
    if len(rest) >= 3 and rest[0] == "namespaces" and not (len(rest) == 3 and rest[2] in ("status", "finalize")):
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3:
        return None
    plural, name, subresource = (*rest, "", "", "")[:3]
    return Address(group, version, plural, namespace, name, subresource)


@dataclass(frozen=True, slots=True)
class Call:
    """One request with its query and headers at hand."""

    request: Request
    query: Mapping[str, str]
    headers: Mapping[str, str]
    user: str

    @property
    def content_type(self) -> str:
        """The media type of the body, without parameters."""
        return self.headers.get("content-type", "application/json").partition(";")[0].strip()

    def flag(self, name: str) -> bool:
        """A boolean query parameter."""
        return self.query.get(name, "") in ("1", "t", "T", "true", "True", "TRUE")

    def number(self, name: str) -> int:
        """A whole-number query parameter, 0 when absent."""
        text = self.query.get(name, "")
        if text and not text.isdigit():
            raise problems.bad_request(f'strconv.ParseUint: parsing "{text}": invalid syntax')
        return int(text or 0)


def parse_call(request: Request, users: Mapping[str, str] | None) -> Call:
    """The call, authenticated: with `users` (token -> user) a bearer token is needed, 401 otherwise."""
    headers = {name.lower(): value for name, value in request.headers}
    user = "system:admin"
    if users is not None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        found = users.get(token) if scheme.lower() == "bearer" else None
        if found is None:
            raise problems.ApiError(problems.status(401, "Unauthorized"))
        user = found
    return Call(request, dict(request.query), headers, user)


def write_options(call: Call, kind: str) -> Options:
    """fieldManager, dryRun and force; `kind` is PatchOptions, CreateOptions, ... for the message of a refusal."""
    causes = []
    dry_run = call.query.get("dryRun", "")
    if dry_run not in ("", "All"):
        causes.append(unsupported_value("dryRun", [dry_run], ["All"]))
    manager = call.query.get("fieldManager", "")
    if len(manager) > 128:
        message = "Too long: may not be more than 128 bytes"
        causes.append(problems.Cause("fieldManager", "FieldValueTooLong", message))
    if kind == "PatchOptions" and call.content_type == APPLY and not manager:
        causes.insert(0, problems.required("fieldManager", "is required for apply patch"))
    if kind == "PatchOptions" and call.content_type != APPLY and "force" in call.query:
        causes.append(problems.forbidden_value("force", "may not be specified for non-apply patch"))
    validation = call.query.get("fieldValidation", "")
    if validation not in ("", "Strict", "Warn", "Ignore"):
        allowed = ["", "Ignore", "Strict", "Warn"]
        causes.append(unsupported_value("fieldValidation", validation, allowed))
    if causes:
        raise problems.invalid_options(kind, causes)
    if not manager:
        manager = call.headers.get("user-agent", "").partition("/")[0] or "unknown"
    return Options(manager, bool(dry_run), call.flag("force"))


def decode_body(call: Call) -> Any:
    """The body as a JSON value. YAML is read where the content type says so."""
    body = call.request.body
    kind = call.content_type
    if kind in (APPLY, "application/yaml"):
        if body.lstrip()[:1] == b"{":
            try:
                return orjson.loads(body)
            except orjson.JSONDecodeError:
                return _yaml(body)
        return _yaml(body)
    if kind not in ("application/json", MERGE, JSON_PATCH):
        listed = "application/json, application/yaml, application/vnd.kubernetes.protobuf, application/cbor"
        message = f"the body of the request was in an unknown format - accepted media types include: {listed}"
        raise problems.ApiError(problems.status(415, message))
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise problems.bad_request(f"error decoding patch: {error}" if kind in PATCHES else str(error)) from error


def _yaml(body: bytes) -> Any:
    loaded = yaml_kube.load("body", body)
    if loaded.problems or len(loaded.documents) != 1:
        why = loaded.problems[0].message if loaded.problems else "expected one document"
        raise problems.bad_request(f"error decoding YAML: error converting YAML to JSON: yaml: {why}")
    return loaded.documents[0].value


def merge_patch(value: Any, patch: Any) -> Any:
    """RFC 7386; unchanged parts are shared with `value`."""
    if not isinstance(patch, dict):
        return patch
    result = dict(value) if isinstance(value, dict) else {}
    for key, wanted in patch.items():
        if wanted is None:
            result.pop(key, None)
        elif isinstance(wanted, dict):
            result[key] = merge_patch(result.get(key), wanted)
        elif key not in result or result[key] != wanted or type(result[key]) is not type(wanted):
            result[key] = wanted
    return result


@lru_cache(maxsize=256)
def representation(accept: str) -> str:
    """What form the client wants: "object", "Table" or "PartialObjectMetadata"; 406 when none is spoken here."""
    for one in accept.split(",") if accept else ["application/json"]:
        media, *parameters = (part.strip() for part in one.split(";"))
        if media not in ("application/json", "*/*", "application/*"):
            continue
        named = dict(part.partition("=")[::2] for part in parameters)
        form = named.get("as", "").removesuffix("List")
        if not form:
            return "object"
        if named.get("g") == "meta.k8s.io" and named.get("v") == "v1" and form in ("Table", "PartialObjectMetadata"):
            return form
    listed = ", ".join(ACCEPTED)
    message = f"only the following media types are accepted: {listed}"
    raise problems.ApiError(problems.status(406, message, reason="NotAcceptable"))
