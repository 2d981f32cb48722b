"""Refusals of the simulated API server, worded and coded as the real one's.

`raise ApiError(...)` anywhere below `handle` becomes an answer whose body is a Status object. The constructors are
named after the reasons that clients see: not_found, already_exists, conflict, invalid, bad_request, expired.

    raise not_found(resource, "orders")      404 flinkdeployments.flink.apache.org "orders" not found
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from reconciler.sim.schema import Resource

Status = dict[str, Any]

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    503: "ServiceUnavailable",
    504: "Timeout",
}


def status(code: int, message: str, *, reason: str | None = None, details: dict[str, Any] | None = None) -> Status:
    """A Status object of a failure."""
    body: Status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
    }
    chosen = REASONS.get(code, "") if reason is None else reason
    if chosen:
        body["reason"] = chosen
    if details is not None:
        body["details"] = details
    body["code"] = code
    return body


class ApiError(Exception):
    """A refusal; `body` is the Status to answer with."""

    def __init__(self, body: Status) -> None:
        super().__init__(body["message"])
        self.body = body
        self.code: int = body["code"]


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason why an object is invalid. `reason` as in the API: FieldValueInvalid, FieldValueRequired, ..."""

    field: str
    reason: str
    message: str


def invalid_value(field: str, value: Any, message: str) -> Cause:
    """A value that must not be."""
    return Cause(field, "FieldValueInvalid", f"Invalid value: {shown(value)}: {message}")


def required(field: str, message: str = "") -> Cause:
    """A value that must be there."""
    return Cause(field, "FieldValueRequired", f"Required value: {message}" if message else "Required value")


def forbidden_value(field: str, message: str) -> Cause:
    """A change that must not be made."""
    return Cause(field, "FieldValueForbidden", f"Forbidden: {message}")


def unsupported_value(field: str, value: Any, allowed: Iterable[Any]) -> Cause:
    """A value outside an enumeration."""
    listed = ", ".join(shown(one) for one in allowed)
    return Cause(field, "FieldValueNotSupported", f"Unsupported value: {shown(value)}: supported values: {listed}")


def shown(value: Any) -> str:
    """A value as messages quote it."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _named(resource: Resource, name: str, kind: str) -> dict[str, Any]:
    details = {"name": name}
    if resource.group:
        details["group"] = resource.group
    details["kind"] = kind
    return details


def not_found(resource: Resource, name: str) -> ApiError:
    """No such object."""
    details = _named(resource, name, resource.plural)
    return ApiError(status(404, f'{resource.qualified} "{name}" not found', details=details))


def namespace_not_found(namespace: str) -> ApiError:
    """The namespace of a write does not exist."""
    details = {"name": namespace, "kind": "namespaces"}
    return ApiError(status(404, f'namespaces "{namespace}" not found', details=details))


def already_exists(resource: Resource, name: str, *, deleting: bool = False) -> ApiError:
    """A create of what exists."""
    details = _named(resource, name, resource.plural)
    prefix = "object is being deleted: " if deleting else ""
    message = f'{prefix}{resource.qualified} "{name}" already exists'
    return ApiError(status(409, message, reason="AlreadyExists", details=details))


def conflict(resource: Resource, name: str, why: str) -> ApiError:
    """The object is not as the writer believed."""
    details = _named(resource, name, resource.plural)
    return ApiError(
        status(409, f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}', details=details)
    )


def precondition_failed(resource: Resource, name: str, why: str) -> ApiError:
    """A delete's precondition does not hold; here the real server names the kind, not the plural."""
    details = _named(resource, name, resource.kind)
    message = f'Operation cannot be fulfilled on {resource.qualified_kind} "{name}": {why}'
    return ApiError(status(409, message, details=details))


STALE = "the object has been modified; please apply your changes to the latest version and try again"


def invalid(resource: Resource, name: str, causes: Sequence[Cause]) -> ApiError:
    """An object that fails validation."""
    return _invalid(resource.qualified_kind, _named(resource, name, resource.kind), name, causes)


def invalid_options(kind: str, causes: Sequence[Cause]) -> ApiError:
    """Request options that fail validation (fieldManager, dryRun, propagationPolicy)."""
    return _invalid(f"{kind}.meta.k8s.io", {"group": "meta.k8s.io", "kind": kind}, "", causes)


def _invalid(what: str, details: dict[str, Any], name: str, causes: Sequence[Cause]) -> ApiError:
    texts = list(dict.fromkeys(f"{cause.field}: {cause.message}" for cause in causes))
    joined = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    details["causes"] = [{"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes]
    return ApiError(status(422, f'{what} "{name}" is invalid: {joined}', details=details))


def unpatchable() -> ApiError:
    """A JSON patch that does not fit the object, be it that a `test` in it fails: the server does not say why."""
    return ApiError(status(422, "the server rejected our request due to an error in our request", details={}))


def invalid_patch(value: Any, why: str) -> ApiError:
    """A patch whose result is no object of its kind: the result is quoted whole."""
    return _invalid("", {}, "", [invalid_value("patch", orjson.dumps(value).decode(), why)])


def bad_request(message: str) -> ApiError:
    """A request that makes no sense."""
    return ApiError(status(400, message))


def internal(message: str) -> ApiError:
    """What the real server answers with 500 and no reason, although the client is at fault."""
    return ApiError(status(500, message, reason=""))


def internal_error(why: str) -> ApiError:
    """Something that the server needs for its answer failed."""
    message = f"Internal error occurred: {why}"
    return ApiError(status(500, message, reason="InternalError", details={"causes": [{"message": why}]}))


def expired(message: str) -> ApiError:
    """A resourceVersion or continue token older than the history."""
    return ApiError(status(410, message))


def not_simulated(what: str) -> ApiError:
    """Beyond what the contract tests cover: said, never guessed."""
    return ApiError(status(501, f"the simulated API server does not cover {what}", reason="NotImplemented"))
