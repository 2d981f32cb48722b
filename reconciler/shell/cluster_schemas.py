"""Each cluster's schemas: read when something is to be written there, kept once for all clusters that serve the same.

    daemon:  SchemaShelf        what documents say, by the hash of their content: a thousand clusters read one once
    lane:    ClusterSchemas     which documents this cluster serves now, and whether it can take a release

    results = await schemas.refused(intents, sent_of, observer.live)     # [] as a rule: go on and write

The index of an API server names each document by the SHA-512 of its bytes. A document is kept under that name only if
its bytes have it: otherwise one cluster could say what the others serve.

Nothing keeps a write from being tried but a mismatch that is certain, and that the cluster's newest index still shows.
Where the schemas cannot be had the server decides, as it does in any case.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor

import orjson

from reconciler.core.as_sent import as_sent, depends_on_live
from reconciler.core.cluster_schema import VersionSchema, compact
from reconciler.core.model import Intent, IntentResult, IntentState, Manifest, ObjectKey, Reason, Verb
from reconciler.core.schema_check import Mismatch, kind_missing, kinds_brought, mismatches, schema_mismatch
from reconciler.shell.kube_answers import SchemaIndex
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_errors import KindMissingError, KubeError
from reconciler.shell.live import NotSeen
from reconciler.shell.logs import event
from reconciler.shell.metrics import Metrics
from reconciler.shell.releases import SentRelease

#: Larger documents say nothing. Kubernetes' own `v1` has 1.6 MB; collections of large CRDs have a few.
DOCUMENT_BYTES_MAX = 16 * 1024 * 1024
#: Documents kept, of 4 to 120 KiB each; the one that was not asked for longest goes.
DOCUMENTS_MAX = 1_000
#: How long one cluster waits for a document that another one is reading: that one may be slow, or hang.
OTHERS_READ_S = 2.0

#: How the bytes of a document are had: one request to a cluster that serves it.
Read = Callable[[], Awaitable[bytes]]
#: What cannot be written: the object, and where it does not fit (nothing: its kind is not served).
Unfit = tuple[ObjectKey, Manifest, tuple[Mismatch, ...]]


class SchemaShelf:
    """What documents say, by the hash of their content, for all clusters of a process. `executor` runs what takes more
    than a moment; without one it runs inline."""

    def __init__(self, executor: Executor | None = None) -> None:
        self._executor = executor
        self._kept: OrderedDict[tuple[str, str], VersionSchema] = OrderedDict()
        self._reading: dict[tuple[str, str], asyncio.Event] = {}

    async def get(self, path: str, content_hash: str, read: Read) -> VersionSchema | None:
        """What the document at `path` ("apis/apps/v1") with this hash says; None if another one was read. Raises
        KubeError, as `read`."""
        name = (path, content_hash)
        found = self._kept.get(name)
        if found is None and (reading := self._reading.get(name)) is not None:
            await _within(reading, OTHERS_READ_S)
            found = self._kept.get(name)
        if found is not None:
            self._kept.move_to_end(name)
            return found
        done = self._reading.setdefault(name, asyncio.Event())
        try:
            schema = await self._made(path, content_hash, await read())
            if schema is not None:
                self._kept[name] = schema
        finally:
            done.set()
            self._reading.pop(name, None)
        while len(self._kept) > DOCUMENTS_MAX:
            self._kept.popitem(last=False)
        return schema

    async def _made(self, path: str, content_hash: str, body: bytes) -> VersionSchema | None:
        if self._executor is None:
            return _schema_in(path, content_hash, body)
        return await asyncio.get_running_loop().run_in_executor(self._executor, _schema_in, path, content_hash, body)


async def _within(done: asyncio.Event, limit_s: float) -> None:
    try:
        async with asyncio.timeout(limit_s):
            await done.wait()
    except TimeoutError:
        return


def _schema_in(path: str, content_hash: str, body: bytes) -> VersionSchema | None:
    """What a document says; None if it is not the one of this hash. One that is too large, or no JSON, says nothing."""
    if hashlib.sha512(body).hexdigest() != content_hash.lower():
        return None
    if len(body) > DOCUMENT_BYTES_MAX:
        return VersionSchema()
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return VersionSchema()
    _, _, rest = path.partition("/")
    group, _, version = rest.rpartition("/")
    return compact(document, group, version)


class ClusterSchemas:
    """What one cluster serves, and whether that takes what is to be written."""

    def __init__(self, kube: KubeCluster, shelf: SchemaShelf, log: logging.Logger, metrics: Metrics) -> None:
        self._kube = kube
        self._shelf = shelf
        self._log = log
        self._metrics = metrics
        self._unreadable: dict[str, float] = {}

    async def refused(
        self,
        intents: Sequence[Intent],
        sent_of: Callable[[Intent], Awaitable[SentRelease]],
        live_of: Callable[[ObjectKey], Manifest | NotSeen | None],
    ) -> list[IntentResult]:
        """What becomes of one target's batch if the cluster cannot take some of its objects: the first of these has
        failed, and nothing else of the batch is written. [] if it is to be carried out."""
        objects: dict[ObjectKey, Manifest] = {}
        brought: frozenset[tuple[str, str]] = frozenset()
        for intent in intents:
            if intent.verb is not Verb.APPLY:
                continue
            sent = await sent_of(intent)
            brought |= kinds_brought(sent.objects.values())
            manifest, rule, live = sent.objects[intent.key], sent.by_object.get(intent.key), live_of(intent.key)
            if depends_on_live(rule):
                if isinstance(live, NotSeen):
                    continue  # What is left out of it is not known yet.
                manifest = as_sent(manifest, live, rule)
            objects[intent.key] = manifest
        reasons = await self.reasons(objects, brought)
        failed = next((intent for intent in intents if intent.verb is Verb.APPLY and intent.key in reasons), None)
        return [] if failed is None else self._told(intents, failed, reasons[failed.key])

    async def reasons(
        self, objects: Mapping[ObjectKey, Manifest], brought: frozenset[tuple[str, str]] = frozenset()
    ) -> dict[ObjectKey, Reason]:
        """Why the cluster cannot take some of `objects`; {} if it can, or if that is not known. Kinds in `brought`
        (see `kinds_brought`) are defined by what is written with them, and not looked at."""
        if not objects:
            return {}
        index = await self._kube.schema_index()
        found = await self._unfit(objects, brought, index)
        if not found:
            return {}
        # They may have changed since they were read: what the cluster served before holds nothing up.
        newest = await self._kube.schema_index(fresh=True)
        if newest.digest != index.digest:
            found = await self._unfit(objects, brought, newest)
        cluster, server = self._kube.name, await self._server_version() if found else ""
        return {
            key: schema_mismatch(manifest, places, cluster, server)
            if places
            else kind_missing(manifest, cluster, server)
            for key, manifest, places in found
        }

    async def _unfit(
        self, objects: Mapping[ObjectKey, Manifest], brought: frozenset[tuple[str, str]], index: SchemaIndex
    ) -> list[Unfit]:
        found: list[Unfit] = []
        for key, manifest in objects.items():
            if (key.group, key.kind) in brought or (key.group, "") in brought:
                continue
            api_version = str(manifest.get("apiVersion"))
            try:
                await self._kube.resource(api_version, key.kind)
            except KindMissingError:
                found.append((key, manifest, ()))
                continue
            except KubeError as error:
                self._unread(api_version, error.reason)
                continue
            schema = await self._schema(f"apis/{api_version}" if key.group else f"api/{api_version}", index)
            if schema is not None and (places := mismatches(manifest, schema)):
                found.append((key, manifest, places))
        return found

    async def _schema(self, path: str, index: SchemaIndex) -> VersionSchema | None:
        """What the cluster serves at `path`; None where that cannot be had, which is tried again with a later index."""
        content_hash = index.hashes.get(path)
        if content_hash is None or self._unreadable.get(path) == index.read_s:
            return None
        reason = Reason("UnexpectedAnswer", "it is not the document that the index names")
        try:
            schema = await self._shelf.get(path, content_hash, lambda: self._kube.schema_document(path, content_hash))
        except KubeError as error:
            schema, reason = None, error.reason
        if schema is None:
            self._unreadable[path] = index.read_s
            self._unread(path, reason)
        return schema

    async def _server_version(self) -> str:
        try:
            return await self._kube.server_version()
        except KubeError:
            return ""

    def _unread(self, what: str, reason: Reason) -> None:
        fields = {"cluster": self._kube.name, "document": what, "reason": str(reason)}
        event(self._log, logging.WARNING, "lane.schema.unread", **fields)

    def _told(self, intents: Sequence[Intent], failed: Intent, reason: Reason) -> list[IntentResult]:
        """The results of a batch of which nothing is written because of one object."""
        self._metrics.add("intents", verb=str(failed.verb), outcome=str(IntentState.FAILED))
        event(
            self._log,
            logging.WARNING,
            "lane.intent.failed",
            cluster=self._kube.name,
            application=failed.target.application,
            object=str(failed.key),
            reason=str(reason),
        )
        others = Reason("NothingWritten", f"nothing of the target is written: {reason.message}")
        return [
            IntentResult(intent.id, IntentState.FAILED, reason)
            if intent is failed
            else IntentResult(intent.id, IntentState.ABANDONED, others)
            for intent in intents
        ]
