"""One cluster's API, as few calls: get, list, apply, delete, watch.

Every method is one exchange (a list: one per page), never repeated here: whether to try again is the lane's decision,
taken from the error's `outcome`. Bodies are raw bytes and orjson; objects keep everything the server sent,
managedFields included, because the comparison needs them.

    cluster = KubeCluster("eu-west-1a", transport)
    live = await cluster.get("flink.apache.org/v1beta1", key)
    after = await cluster.apply(manifest, uid=live["metadata"]["uid"], force=True, dry_run=False)
    async for event in cluster.watch("v1", "ConfigMap", "reconciler.dev/owner", "1234", idle_s=90):
        ...

What is read is read with the connection's own identity. What is written, or tried by a dry-run, is written in the name
of the source it comes from: `cluster.acting_for("payments")` is the same cluster with that identity (`identity.py`).

Why metadata lists instead of Tables for re-syncs: a Table without objects is the cheapest answer there is but names
neither namespace, uid nor resourceVersion, so it can prove life but not find a missed change; with
`includeObject=Metadata` it is a metadata list plus printer columns. So `list_versions` asks for
PartialObjectMetadataList.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from reconciler import __version__
from reconciler.core.model import Manifest, ObjectKey, Reason
from reconciler.shell.identity import Identities, Identity
from reconciler.shell.kube_acting import ActingCluster
from reconciler.shell.kube_answers import (
    ObjectVersion,
    Page,
    Resource,
    SchemaIndex,
    WatchEvent,
    is_identified,
    list_parts,
    not_whole,
    schema_index,
    watch_event,
)
from reconciler.shell.kube_errors import (
    READ,
    Attempt,
    FieldConflictError,
    InvalidError,
    KindMissingError,
    KubeError,
    NotFoundError,
    ObjectConflictError,
    Outcome,
    UnreachableError,
    from_response,
    from_transport,
    unexpected_answer,
)
from reconciler.shell.kube_exchange import KubeExchange
from reconciler.shell.transport import Response, Transport, TransportError

LIST_PAGE_TIMEOUT_S = 60.0
WATCH_CONNECT_TIMEOUT_S = 20.0
#: The server ends a watch after this; it is resumed where it ended. Proxies and load balancers cut longer ones.
WATCH_SERVER_TIMEOUT_S = 300
#: A missing kind is looked up again at most this often: a CRD may have come.
DISCOVERY_INTERVAL_S = 30.0
#: A schema that changes more often costs a dry-run more, or shows an answer that was right a moment ago.
SCHEMA_INTERVAL_S = 300.0
#: Writes wait for it, and go on without it.
SCHEMA_TIMEOUT_S = 10.0
#: Who asks what an apply would do waits for the answer. Longer than a webhook has by default.
DRY_RUN_TIMEOUT_S = 15.0
#: A page is ten times its bytes while it is read, and what that takes is not all given back: pages of 500 made a daemon
#: of 2,400 objects a seventh larger.
LIST_PAGE_OBJECTS = 100
LIST_PAGE_VERSIONS = 500
LIST_PAGES_MAX = 10_000
#: A version that no object has, for it is the empty store's: an apply that asks for it creates, or is a conflict.
NO_VERSION = "1"

METADATA_LIST = (
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,"
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
)

# What the server accepts as a path segment and what needs no quoting in one: names come from Git and are not trusted.
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:~-]*\Z")


class KubeCluster(KubeExchange):
    """The API of one cluster over one Transport. Raises KubeError and nothing else."""

    def __init__(
        self,
        name: str,
        transport: Transport,
        *,
        field_manager: str = "reconciler",
        user_agent: str = f"reconciler/{__version__}",
        now_s: Callable[[], float] | None = None,
        identities: Identities | None = None,
    ) -> None:
        """`now_s` (any monotonic seconds; by default the loop's) limits how often a missing kind is looked up.
        `identities` say with whose rights a source's writes are made; without them it is the connection's own."""
        super().__init__(transport, user_agent)
        self.name = name
        self._field_manager = field_manager
        self._now_s = now_s or (lambda: asyncio.get_running_loop().time())
        self._identities = identities
        self._served: dict[str, tuple[float, dict[str, Resource]]] = {}
        self._schemas = SchemaIndex(float("-inf"))

    def acting_for(self, source: str) -> ActingCluster:
        """This cluster as `source` may write to it."""
        return ActingCluster(self, self._identities(source) if self._identities is not None else None)

    # ---- discovery ---------------------------------------------------------------------------------------------

    async def resource(self, api_version: str, kind: str) -> Resource:
        """How `kind` is addressed on this cluster. Raises KindMissingError if it is not served."""
        asked_at, resources = self._served.get(api_version, (float("-inf"), {}))
        if kind not in resources and self._now_s() - asked_at >= DISCOVERY_INTERVAL_S:
            resources = await self._discover(api_version)
        if kind not in resources:
            raise KindMissingError(Reason("KindMissing", f"cluster {self.name} does not serve {api_version} {kind}"))
        return resources[kind]

    async def _discover(self, api_version: str) -> dict[str, Resource]:
        group, _, version = api_version.rpartition("/")
        if not all(_SEGMENT.match(part) for part in api_version.split("/")) or api_version.count("/") > 1:
            raise KindMissingError(Reason("KindMissing", f"{api_version[:100]!r} is not an API version"))
        asked_at = self._now_s()
        try:
            answer = await self._json("GET", f"/apis/{api_version}" if group else f"/api/{version}", READ)
        except KindMissingError:
            answer = {"kind": "APIResourceList", "resources": []}
        if answer.get("kind") != "APIResourceList":
            raise unexpected_answer(f"discovery of {api_version} answered {answer.get('kind')}", READ)
        resources: dict[str, Resource] = {}
        for item in answer.get("resources") or []:
            # Subresources ("deployments/status") carry kinds, too, and are no segment.
            if isinstance(item, dict) and _SEGMENT.match(str(item.get("name"))):
                kind = str(item.get("kind"))
                resources[kind] = Resource(group, version, str(item["name"]), kind, bool(item.get("namespaced")))
        self._served[api_version] = (asked_at, resources)
        return resources

    async def _path(self, api_version: str, kind: str, namespace: str = "", name: str = "") -> str:
        """The path of an object, or of a collection if `name` is "" (of all namespaces if `namespace` is, too)."""
        resource = await self.resource(api_version, kind)
        for part in filter(None, (namespace, name)):
            if not _SEGMENT.match(part):
                raise InvalidError(Reason("InvalidName", f"{part[:100]!r} is not a name an API server accepts"))
        if name and resource.namespaced != bool(namespace):
            needs = "needs a namespace" if resource.namespaced else "is cluster-scoped and has no namespace"
            raise InvalidError(Reason("InvalidScope", f"{api_version} {kind} {name} {needs}"))
        root = f"/apis/{api_version}" if resource.group else f"/api/{resource.version}"
        scope = f"/namespaces/{namespace}" if namespace and resource.namespaced else ""
        return f"{root}{scope}/{resource.plural}" + (f"/{name}" if name else "")

    async def schema_index(self, *, fresh: bool = False) -> SchemaIndex:
        """Which schemas the cluster serves, asked at most every SCHEMA_INTERVAL_S unless it has to be `fresh`. Empty
        where that cannot be had, which is asked again sooner."""
        known = self._schemas
        interval_s = SCHEMA_INTERVAL_S if known.hashes else DISCOVERY_INTERVAL_S
        if not fresh and self._now_s() - known.read_s < interval_s:
            return known
        try:
            answer = await self._json("GET", "/openapi/v3", READ, timeout_s=SCHEMA_TIMEOUT_S)
        except KubeError:
            answer = {}
        self._schemas = schema_index(answer, self._now_s())
        return self._schemas

    async def schema_digest(self) -> str:
        """A name for the schemas that the cluster serves now: equal as long as none of them changes. "" where it cannot
        be had."""
        return (await self.schema_index()).digest

    async def schema_document(self, path: str, content_hash: str) -> bytes:
        """The OpenAPI document of a group and version; `path` and `content_hash` as the index has them."""
        query = (("hash", content_hash),)
        request = self._request("GET", f"/openapi/v3/{path}", query, READ, timeout_s=SCHEMA_TIMEOUT_S)
        return (await self._exchange(request, READ)).body

    # ---- single objects ----------------------------------------------------------------------------------------

    async def server_version(self) -> str:
        """The server's version as it says it ("v1.36.2")."""
        return str((await self._json("GET", "/version", READ)).get("gitVersion") or "")

    async def get(self, api_version: str, key: ObjectKey) -> Manifest | None:
        """The object as it is now, None if it is not there. A kind that is not served raises KindMissingError."""
        path = await self._path(api_version, key.kind, key.namespace, key.name)
        attempt = Attempt(writes=False, key=key)
        try:
            return self._object(await self._json("GET", path, attempt), attempt)
        except NotFoundError:
            return None

    async def apply(
        self,
        manifest: Manifest,
        *,
        uid: str | None,
        force: bool,
        dry_run: bool,
        resource_version: str | None = None,
        identity: Identity | None = None,
    ) -> Manifest:
        """Server-side apply; the object after it. With `uid` the object must be the one that was read; without, it is
        created, and nothing may be there: else ObjectConflictError, and nothing happened. `force` takes fields over
        from other managers. With `identity` its rights decide, not the connection's."""
        if resource_version and not uid:
            raise ValueError("an apply with a resourceVersion alone would create a deleted object again")
        key = ObjectKey.of(manifest)
        api_version = str(manifest.get("apiVersion", ""))
        path = await self._path(api_version, key.kind, key.namespace, key.name)
        guards = {"uid": uid} if uid else {"resourceVersion": NO_VERSION}
        if resource_version:
            guards["resourceVersion"] = resource_version
        body = {**manifest, "metadata": {**manifest["metadata"], **guards}}
        query = [("fieldManager", self._field_manager), ("fieldValidation", "Strict")]
        query += [("force", "true")] if force else []
        query += [("dryRun", "All")] if dry_run else []
        attempt = Attempt(writes=not dry_run, key=key, identity=identity)
        try:
            answer = await self._json(
                "PATCH",
                path,
                attempt,
                query=tuple(query),
                body=body,
                content_type="application/apply-patch+yaml",
                timeout_s=DRY_RUN_TIMEOUT_S if dry_run else None,
            )
        except FieldConflictError as error:
            if uid:
                raise
            raise ObjectConflictError(error.reason, outcome=Outcome.TEMPORARY, status=error.status) from error
        # What a dry-run would create has no resourceVersion: it is checked for being the right object only.
        return answer if dry_run and ObjectKey.of(answer) == key else self._object(answer, attempt)

    async def set_managed_fields(
        self,
        api_version: str,
        key: ObjectKey,
        fields: list[dict[str, Any]],
        *,
        uid: str,
        resource_version: str,
        identity: Identity | None = None,
    ) -> Manifest:
        """Replace the record of who owns what, of exactly the object that was read (another version:
        ObjectConflictError). Nothing else of it changes. With `identity` its rights decide."""
        path = await self._path(api_version, key.kind, key.namespace, key.name)
        metadata = {"uid": uid, "resourceVersion": resource_version, "managedFields": fields}
        attempt = Attempt(writes=True, key=key, identity=identity)
        query = (("fieldManager", self._field_manager),)
        body, kind = {"metadata": metadata}, "application/merge-patch+json"
        return self._object(
            await self._json("PATCH", path, attempt, query=query, body=body, content_type=kind),
            attempt,
        )

    async def delete(
        self,
        api_version: str,
        key: ObjectKey,
        uid: str,
        propagation: str = "Background",
        *,
        identity: Identity | None = None,
    ) -> bool:
        """Delete the object with this `uid` (another one: ObjectConflictError). True if it is gone now, False if the
        server accepted it and finalizers or a grace period hold it back. With `identity` its rights decide."""
        path = await self._path(api_version, key.kind, key.namespace, key.name)
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
            "preconditions": {"uid": uid},
        }
        try:
            answer = await self._json("DELETE", path, Attempt(writes=True, key=key, identity=identity), body=options)
        except NotFoundError:
            return True
        # The server answers a Status once the object is gone, and the object itself while something holds it.
        return answer.get("kind") == "Status" and answer.get("status") == "Success"

    # ---- lists -------------------------------------------------------------------------------------------------

    async def list_pages(
        self, api_version: str, kind: str, selector: str = "", *, namespace: str = "", limit: int = LIST_PAGE_OBJECTS
    ) -> AsyncGenerator[Page, None]:
        """All objects of `kind` that `selector` selects, as they were at one moment, page by page. Nothing is complete
        before the page that says `last`; a list that turns out not to be whole raises GoneError."""
        resource = await self.resource(api_version, kind)
        pages = self._raw_pages(api_version, kind, selector, namespace, limit, "application/json")
        async with aclosing(pages):
            async for version, items, last in pages:
                for item in items:
                    # Items of built-in kinds come without their type.
                    item["apiVersion"], item["kind"] = resource.api_version, resource.kind
                yield Page(version, items, last)

    async def list_versions(
        self, api_version: str, kind: str, selector: str = "", *, namespace: str = ""
    ) -> tuple[str, list[ObjectVersion]]:
        """The list's resourceVersion and the identity and version of every object selected, without their content."""
        resource = await self.resource(api_version, kind)
        rows: list[ObjectVersion] = []
        version = ""
        pages = self._raw_pages(api_version, kind, selector, namespace, LIST_PAGE_VERSIONS, METADATA_LIST)
        async with aclosing(pages):
            async for page_version, items, _ in pages:
                version = page_version
                for item in items:
                    metadata = item["metadata"]
                    key = ObjectKey(resource.group, kind, metadata.get("namespace") or "", metadata["name"])
                    rows.append(ObjectVersion(key, metadata["uid"], metadata["resourceVersion"]))
        return version, rows

    async def _raw_pages(
        self, api_version: str, kind: str, selector: str, namespace: str, limit: int, accept: str
    ) -> AsyncGenerator[tuple[str, list[Manifest], bool], None]:
        path = await self._path(api_version, kind, namespace)
        token = version = ""
        for _ in range(LIST_PAGES_MAX):
            query = [("limit", str(limit))]
            query += [("labelSelector", selector)] if selector else []
            query += [("continue", token)] if token else []
            answer = await self._json(
                "GET", path, READ, query=tuple(query), accept=accept, timeout_s=LIST_PAGE_TIMEOUT_S
            )
            metadata, items = list_parts(answer)
            following = str(metadata.get("continue") or "")
            page_version = str(metadata["resourceVersion"])
            version = version or page_version
            if page_version != version or (following and following == token):
                raise not_whole(f"list of {kind} changed its snapshot between pages")
            if not following and (metadata.get("remainingItemCount") or 0) > 0:
                raise not_whole(f"list of {kind} ended {metadata['remainingItemCount']} objects early")
            token = following
            yield version, items, not token
            if not token:
                return
        raise not_whole(f"list of {kind} has more than {LIST_PAGES_MAX} pages")

    # ---- watch -------------------------------------------------------------------------------------------------

    async def watch(
        self,
        api_version: str,
        kind: str,
        selector: str,
        resource_version: str,
        *,
        idle_s: float,
        on_open: Callable[[], None] | None = None,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Events after `resource_version`, until the server ends the watch. Raises GoneError if that version is too
        old, UnreachableError if nothing came for `idle_s` (of the loop's time) or the connection broke. `on_open` is
        called once the server has accepted the watch. Close it with `aclosing`."""
        resource = await self.resource(api_version, kind)
        path = await self._path(api_version, kind)
        query = [
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", resource_version),
            ("timeoutSeconds", str(WATCH_SERVER_TIMEOUT_S)),
        ]
        query += [("labelSelector", selector)] if selector else []
        request = self._request("GET", path, tuple(query), READ, timeout_s=WATCH_CONNECT_TIMEOUT_S)
        try:
            async with self._transport.stream(request) as stream:
                if stream.status != 200:
                    raise from_response(Response(stream.status, stream.headers, stream.body), READ)
                if on_open is not None:
                    on_open()
                lines = aiter(stream.lines)
                while (line := await self._next_line(lines, idle_s)) is not None:
                    if line.strip():
                        yield watch_event(line, resource)
        except TransportError as error:
            raise from_transport(error, READ) from error

    async def _next_line(self, lines: AsyncIterator[bytes], idle_s: float) -> bytes | None:
        """The next line, None at the end of the stream."""
        try:
            async with asyncio.timeout(idle_s):
                return await anext(lines, None)
        except TimeoutError as error:
            reason = Reason("WatchIdle", f"a watch on cluster {self.name} said nothing for {idle_s:g} s")
            raise UnreachableError(reason, outcome=Outcome.TEMPORARY, answered=False) from error

    @staticmethod
    def _object(answer: dict[str, Any], attempt: Attempt) -> Manifest:
        """`answer` if it is the object that was asked for."""
        if not is_identified(answer) or ObjectKey.of(answer) != attempt.key:
            raise unexpected_answer(f"asked for {attempt.key} and was answered {answer.get('kind')}", attempt)
        return answer
