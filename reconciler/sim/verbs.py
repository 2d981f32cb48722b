"""Verbs: which request does what, and the record of every write.

`dispatch` finds the resource and the verb, checks what a request says about the object against its path, runs it, and
appends writes to the log, the refused ones included.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import orjson

from reconciler.shell.transport import Response, Stream
from reconciler.sim import deletions, discovery, problems
from reconciler.sim.complete import bad_base64, unknown_fields
from reconciler.sim.json_patch import PatchError, json_patch
from reconciler.sim.problems import ApiError
from reconciler.sim.reads import JSON_HEADERS, Reads
from reconciler.sim.requests import (
    APPLY,
    JSON_PATCH,
    MERGE,
    PATCHES,
    STRATEGIC,
    Address,
    Call,
    decode_body,
    merge_patch,
    parse_path,
    write_options,
)
from reconciler.sim.schema import Catalog, Resource
from reconciler.sim.store import Key, Store, Stored, WriteEntry
from reconciler.sim.typed import type_errors
from reconciler.sim.versions import Object
from reconciler.sim.writes import Options, Target, Writer

VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
POLICIES = ("Foreground", "Background", "Orphan", "nil")
#: Core kinds whose delete answers the object instead of a Status.
ANSWERS_DELETED = frozenset(
    (
        "Namespace",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "Pod",
        "PodTemplate",
        "ResourceQuota",
        "Service",
        "ServiceAccount",
    )
)


class Server(Protocol):
    """What requests are run on. All of it may change while it runs."""

    catalog: Catalog
    now: Callable[[], float]


class Verbs:
    """Runs requests on one server."""

    def __init__(self, server: Server, store: Store, writer: Writer, reads: Reads) -> None:
        self._server = server
        self._store = store
        self._writer = writer
        self._reads = reads

    def dispatch(self, call: Call) -> Response | Stream:
        """Answer a request; ApiError for a refusal."""
        request = call.request
        if request.path in discovery.HEALTH_PATHS:
            return Response(200, {"content-type": "text/plain; charset=utf-8"}, b"ok")
        address = parse_path(request.path)
        if address is None or not address.plural:
            return self._discovery(call)
        resource = self._server.catalog.resource(address.group, address.version, address.plural)
        if resource is None or resource.namespaced < bool(address.namespace):
            return self._no_resource(address)
        if address.subresource and address.subresource not in resource.subresources:
            return self._no_resource(address)
        if address.subresource not in ("", "status"):
            raise problems.not_simulated(f"{address.plural}/{address.subresource}")
        return self._resource(call, resource, address)

    def _discovery(self, call: Call) -> Response:
        document = discovery.document(self._server.catalog, call.request.path)
        if document is None:
            if call.request.path.startswith(("/openapi", "/metrics", "/logs", "/.well-known")):
                raise problems.not_simulated(call.request.path)
            return _page_not_found()
        self._count("get")
        return Response(200, JSON_HEADERS, orjson.dumps(document))

    def _no_resource(self, address: Address) -> Response:
        """Groups of built-in kinds answer a Status, others a page."""
        in_group = [one for one in self._server.catalog.resources if one.group == address.group]
        if not in_group or all(one.custom for one in in_group):
            return _page_not_found()
        message = "the server could not find the requested resource"
        raise ApiError(problems.status(404, message, details={}))

    def _count(self, verb: str) -> None:
        self._store.requests[verb] = self._store.requests.get(verb, 0) + 1

    def _resource(self, call: Call, resource: Resource, address: Address) -> Response | Stream:
        method = call.request.method
        target = Target(resource, address.namespace, address.name, address.subresource)
        if method == "GET":
            return self._read(call, target)
        in_collection = not address.name
        in_all = resource.namespaced and not address.namespace
        if method not in VERBS or in_collection != (method == "POST") or in_all:
            if method == "DELETE" and in_collection:
                raise problems.not_simulated("deletecollection")
            message = "the server does not allow this method on the requested resource"
            raise ApiError(problems.status(405, message, reason="MethodNotAllowed", details={}))
        verb = VERBS[method]
        self._count(verb)
        if method == "DELETE":
            return self._delete(call, target)
        return self._write(call, verb, target)

    def _read(self, call: Call, target: Target) -> Response | Stream:
        if target.name:
            self._count("get")
            return self._reads.get(call, target.resource, self._writer.get(target))
        if call.flag("watch"):
            self._count("watch")
            return self._reads.watch(call, target.resource, target.namespace)
        self._count("list")
        return self._reads.list(call, target.resource, target.namespace)

    # --------------------------------------------------------------------------------------------------- writes

    def _write(self, call: Call, verb: str, target: Target) -> Response:
        kinds = {"create": "CreateOptions", "update": "UpdateOptions", "patch": "PatchOptions"}
        if verb == "patch":
            _must_be_a_patch(call, target.resource)
        options = write_options(call, kinds[verb])
        body = decode_body(call)
        if call.content_type == JSON_PATCH and verb == "patch":
            if not isinstance(body, list):
                why = "json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
                raise problems.bad_request(f"error decoding patch: {why}")
        elif not isinstance(body, dict):
            raise problems.bad_request("the body of the request is not an object")
        if verb != "patch" or call.content_type == APPLY:
            target = _matching(body, target, apply=verb == "patch")
        before = self._writer.find(target) if target.name else None
        try:
            warnings: list[str] = []
            if verb == "create":
                stored, code = self._create(call, target, body, options, warnings), 201
            elif verb == "update":
                stored, code = self._update(call, target, body, options, warnings), 200
            elif call.content_type == APPLY:
                stored, created = self._writer.apply(target, body, options)
                code = 201 if created else 200
            else:
                stored, code = self._patch(call, target, body, options, warnings), 200
        except ApiError as error:
            self._count("refused")
            self.record(
                call.user, options.manager, verb, target, before, None, call.request.body,
                dry_run=options.dry_run, code=error.code,
            )  # fmt: skip
            raise
        target = replace(target, name=stored.value["metadata"]["name"])
        self.record(
            call.user, options.manager, verb, target, before, stored, call.request.body,
            dry_run=options.dry_run, code=code,
        )  # fmt: skip
        headers = dict(JSON_HEADERS)
        if warnings:
            headers["warning"] = ", ".join(f"299 - {orjson.dumps(text).decode()}" for text in warnings)
        return Response(code, headers, stored.raw)

    def _create(self, call: Call, target: Target, body: Object, options: Options, warnings: list[str]) -> Stored:
        self._check_fields(call, target.resource, body, warnings)
        return self._writer.create(target, body, options)

    def _update(self, call: Call, target: Target, body: Object, options: Options, warnings: list[str]) -> Stored:
        self._check_fields(call, target.resource, body, warnings)
        live = self._writer.get(target)
        metadata = body.get("metadata") or {}
        if metadata.get("uid") and metadata["uid"] != live.uid:
            where = f"/registry/{target.resource.plural}/{target.namespace}/{target.name}"
            why = f"StorageError: invalid object, Code: 4, Key: {where}, ResourceVersion: 0, AdditionalErrorMsg: "
            wrong = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {live.uid}"
            raise problems.conflict(target.resource, target.name, why + wrong)
        if target.resource.custom and not metadata.get("resourceVersion"):
            cause = problems.invalid_value("metadata.resourceVersion", 0, "must be specified for an update")
            raise problems.invalid(target.resource, target.name, [cause])
        return self._writer.update(target, live, body, options)

    def _patch(self, call: Call, target: Target, body: Any, options: Options, warnings: list[str]) -> Stored:
        live = self._writer.get(target)
        wanted = _patched(live, body)
        metadata = wanted.get("metadata") or {}
        for field, value in (("name", target.name), ("namespace", target.namespace)):
            if metadata.get(field, value) != value:
                raise problems.bad_request(
                    f"the {field} of the object ({metadata[field]}) does not match the {field} on the URL ({value})"
                )
        self._check_fields(call, target.resource, wanted, warnings)
        if isinstance(body, dict):
            return self.merge(target, live, body, options)
        return self._writer.update(target, live, wanted, options)

    def merge(self, target: Target, live: Stored, patch: Object, options: Options) -> Stored:
        """A merge patch on a live object."""
        wanted = merge_patch(live.value, patch)
        if "managedFields" not in (patch.get("metadata") or {}):
            # What the patch does not touch is not part of what was sent.
            wanted["metadata"] = {key: value for key, value in wanted["metadata"].items() if key != "managedFields"}
        return self._writer.update(target, live, wanted, options)

    def _check_fields(self, call: Call, resource: Resource, body: Object, warnings: list[str]) -> None:
        """Wrong types of built-in kinds are 400; unknown fields are refused, warned of or dropped as asked."""
        patching = call.request.method == "PATCH"

        def refusal(why: str) -> ApiError:
            if patching:
                return problems.invalid_patch(body, why)
            return problems.bad_request(_cannot_be_handled(resource, why))

        if not resource.custom:
            errors = type_errors(resource.node, _known_part(body, resource), allow_duplicates=True)
            if errors:
                path, message = errors[0]
                why = f"json: cannot unmarshal into Go struct field {resource.kind}{path}: {message}"
                raise refusal(why)
            wrong = bad_base64(body) if resource.storage == "/secrets" else ""
            if wrong:
                raise refusal(wrong)
        mode = call.query.get("fieldValidation") or "Warn"
        unknown = [] if mode == "Ignore" else unknown_fields(resource.node, body)
        if unknown and mode == "Strict":
            raise refusal("strict decoding error: " + ", ".join(f'unknown field "{name}"' for name in unknown))
        warnings += [f'unknown field "{name}"' for name in unknown]

    def _delete(self, call: Call, target: Target) -> Response:
        if target.subresource:
            raise problems.not_simulated("delete of a subresource")
        body: Object = {}
        if call.request.body:
            body = decode_body(call)
        policy = body.get("propagationPolicy") or call.query.get("propagationPolicy", "")
        if policy and policy not in POLICIES:
            raise problems.invalid_options(
                "DeleteOptions", [problems.unsupported_value("propagationPolicy", policy, POLICIES)]
            )
        options = write_options(call, "DeleteOptions")
        if body.get("dryRun"):
            options = replace(options, dry_run=True)
        before = self._writer.find(target)
        try:
            preconditions = body.get("preconditions") or {}
            stored, gone = deletions.delete(self._writer, target, options, preconditions=preconditions, policy=policy)
        except ApiError as error:
            self._count("refused")
            self.record(
                call.user, options.manager, "delete", target, before, None, call.request.body,
                dry_run=options.dry_run, code=error.code,
            )  # fmt: skip
            raise
        self.record(
            call.user, options.manager, "delete", target, before, None if gone else stored, call.request.body,
            dry_run=options.dry_run,
        )  # fmt: skip
        whole = not gone or (not target.resource.group and target.resource.kind in ANSWERS_DELETED)
        return Response(200, JSON_HEADERS, stored.raw if whole else _success(target, stored))

    # ------------------------------------------------------------------------------------------------------ log

    def record(
        self,
        user: str,
        manager: str,
        verb: str,
        target: Target,
        before: Stored | None,
        after: Stored | None,
        body: bytes,
        *,
        dry_run: bool = False,
        code: int = 200,
    ) -> None:
        """Append one write to the log."""
        resource = target.resource
        shown = after or before
        accepted = code < 300
        revision_before = before.revision if before is not None else 0
        revision_after = revision_before
        if accepted and not dry_run:
            revision_after = after.revision if after is not None else self._store.revision
        self._store.log.append(
            WriteEntry(
                sequence=len(self._store.log) + 1,
                time=self._server.now(),
                user=user,
                manager=manager,
                verb=verb,
                key=Key(resource.group, resource.kind, target.namespace, target.name),
                subresource=target.subresource,
                uid=shown.uid if shown is not None else "",
                revision_before=revision_before,
                revision_after=revision_after,
                dry_run=dry_run,
                digest=hashlib.blake2b(body, digest_size=8).hexdigest(),
                labels=shown.labels if shown is not None else {},
                changed=revision_after != revision_before,
                code=code,
            )
        )


def _patched(live: Stored, body: Any) -> Any:
    """The live object after a merge patch or a JSON patch."""
    if isinstance(body, dict):
        return merge_patch(live.value, body)
    try:
        return json_patch(live.value, body)
    except PatchError as error:
        raise problems.unpatchable() from error


def _page_not_found() -> Response:
    return Response(404, {"content-type": "text/plain; charset=utf-8"}, b"404 page not found\n")


def _success(target: Target, stored: Stored) -> bytes:
    details: dict[str, Any] = {"name": target.name}
    if target.resource.group:
        details["group"] = target.resource.group
    details |= {"kind": target.resource.plural, "uid": stored.uid}
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
    return orjson.dumps(body)


def _cannot_be_handled(resource: Resource, why: str) -> str:
    return f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {why}'


def _known_part(body: Object, resource: Resource) -> Object:
    """The body without its unknown top-level fields: types are checked first, unknown fields after."""
    return {key: value for key, value in body.items() if key in resource.node.fields}


def _must_be_a_patch(call: Call, resource: Resource) -> None:
    kind = call.content_type
    if kind not in PATCHES:
        raise ApiError(problems.status(415, "415: Unsupported Media Type", details={}))
    if kind == STRATEGIC and resource.custom:
        listed = ", ".join((JSON_PATCH, MERGE, APPLY))
        message = f"the body of the request was in an unknown format - accepted media types include: {listed}"
        raise ApiError(problems.status(415, message))
    if kind == STRATEGIC:
        raise problems.not_simulated(kind)


def _matching(body: Object, target: Target, *, apply: bool) -> Target:
    """What the body says about itself must agree with the path. Returns the target, named by the body for a create."""
    resource = target.resource
    api_version, kind = body.get("apiVersion") or "", body.get("kind") or ""
    if (api_version or apply) and (kind or apply) and (api_version, kind) != (resource.api_version, resource.kind):
        group, _, version = api_version.rpartition("/")
        if apply:
            raise problems.bad_request(f"invalid object type: {group}/{version}, Kind={kind}")
        raise problems.bad_request(
            f'{kind} in version "{version}" cannot be handled as a {resource.kind}: no kind "{kind}" is registered'
        )
    metadata = body.get("metadata")
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict):
        raise problems.bad_request("metadata is not an object")
    name, namespace = metadata.get("name") or "", metadata.get("namespace") or ""
    if namespace and namespace != target.namespace:
        raise problems.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    if not target.name:
        return replace(target, name=name)
    if not name:
        text = f"the name of the object ({target.name} based on URL) was undeterminable: name must be provided"
        raise problems.bad_request(text)
    if name != target.name:
        raise problems.bad_request(
            f"the name of the object ({name}) does not match the name on the URL ({target.name})"
        )
    return target
