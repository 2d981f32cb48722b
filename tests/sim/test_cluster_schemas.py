"""Reading clusters' schemas: once for all that serve the same, from whoever answers, and never more than is certain."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest

from reconciler.core.apply_rules import ObjectRule
from reconciler.core.field_paths import parse_field_path
from reconciler.core.model import Intent, IntentState, Manifest, ObjectKey, Reason, Target, Verb
from reconciler.shell import cluster_schemas
from reconciler.shell.cluster_schemas import OTHERS_READ_S, ClusterSchemas, SchemaShelf
from reconciler.shell.kube_cluster import DISCOVERY_INTERVAL_S, SCHEMA_INTERVAL_S, KubeCluster
from reconciler.shell.live import NOT_SEEN, NotSeen
from reconciler.shell.metrics import Metrics
from reconciler.shell.releases import SentRelease
from reconciler.shell.transport import Request, Response
from reconciler.sim.apiserver import SimApiServer
from reconciler.sim.loop import run
from reconciler.sim.schema import load_catalog

TARGET = Target("sample/orders", "c0")
FLINK = "/openapi/v3/apis/flink.apache.org/v1beta1"
OLD = load_catalog().variant(without_fields={"FlinkDeployment": [("spec", "job", "args")]})
Answer = Callable[[Request, Response], Awaitable[Response]]


class Connection:
    """A transport that counts what is asked, and lets a test spoil the answers to some paths."""

    def __init__(self, server: SimApiServer) -> None:
        self._inner = server.transport()
        self.asked: list[str] = []
        self.spoiled: dict[str, Answer] = {}

    async def request(self, request: Request) -> Response:
        """One exchange."""
        self.asked.append(request.path)
        answer = await self._inner.request(request)
        spoil = self.spoiled.get(request.path)
        return answer if spoil is None else await spoil(request, answer)

    def stream(self, request: Request) -> Any:
        """Not asked for here."""
        return self._inner.stream(request)

    async def close(self) -> None:
        """Close."""
        await self._inner.close()


class Bench:
    """One simulated cluster and what reads its schemas."""

    def __init__(self, shelf: SchemaShelf, name: str = "c0") -> None:
        self.server = SimApiServer(catalog=load_catalog())
        self.connection = Connection(self.server)
        self.kube = KubeCluster(name, self.connection)
        self.schemas = ClusterSchemas(self.kube, shelf, logging.getLogger("test"), Metrics("test"))

    async def reasons(self, *manifests: Manifest) -> list[str]:
        """Codes of what the cluster cannot take."""
        found = await self.schemas.reasons({ObjectKey.of(one): one for one in manifests})
        return [reason.code for reason in found.values()]

    def asked(self, path: str) -> int:
        """How often `path` was asked for."""
        return self.connection.asked.count(path)


def job(**fields: Any) -> Manifest:
    metadata = {"name": "orders", "namespace": "orders"}
    spec = {"image": "orders:1", "job": {"jarURI": "local:///x", "args": ["fast"]}, **fields}
    return {"apiVersion": "flink.apache.org/v1beta1", "kind": "FlinkDeployment", "metadata": metadata, "spec": spec}


def config(**data: Any) -> Manifest:
    metadata = {"name": "orders", "namespace": "orders"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def answer(body: bytes, status: int = 200) -> Answer:
    async def given(request: Request, response: Response) -> Response:
        del request
        return Response(status, response.headers, body)

    return given


async def hang(request: Request, response: Response) -> Response:
    """An answer that never comes."""
    del request
    await asyncio.Event().wait()
    return response


def test_clusters_that_serve_the_same_read_it_once_and_keep_it_once() -> None:
    async def story() -> None:
        shelf = SchemaShelf()
        benches = [Bench(shelf, f"c{number}") for number in range(20)]
        assert await asyncio.gather(*(bench.reasons(job(), config(a="1")) for bench in benches)) == [[]] * 20
        assert sum(bench.asked(FLINK) for bench in benches) == 1
        assert [bench.asked("/openapi/v3") for bench in benches] == [1] * 20
        # One of another age reads what is different there, and only that.
        benches[0].server.set_catalog(OLD)
        await asyncio.sleep(SCHEMA_INTERVAL_S)
        assert await benches[0].reasons(job(), config(a="1")) == ["SchemaMismatch"]
        assert await benches[1].reasons(job(), config(a="1")) == []
        assert sum(bench.asked(FLINK) for bench in benches) == 2
        assert sum(bench.asked("/openapi/v3/api/v1") for bench in benches) == 1
        assert sum(bench.asked("/openapi/v3/apis/apps/v1") for bench in benches) == 0

    run(story())


def test_a_cluster_that_hangs_holds_up_another_one_for_a_moment_only() -> None:
    async def story() -> None:
        shelf = SchemaShelf()
        slow, other = Bench(shelf, "slow"), Bench(shelf, "other")
        slow.connection.spoiled[FLINK] = hang
        loop = asyncio.get_running_loop()
        hanging = loop.create_task(slow.reasons(job()))
        await asyncio.sleep(0.1)
        begun = loop.time()
        assert await other.reasons(job(nonsense=1)) == ["SchemaMismatch"]
        assert loop.time() - begun < 2 * OTHERS_READ_S
        assert other.asked(FLINK) == 1
        hanging.cancel()
        await asyncio.wait([hanging])
        # What it had begun leaves nothing behind.
        third = Bench(shelf, "third")
        assert await third.reasons(job(nonsense=1)) == ["SchemaMismatch"]
        assert third.asked(FLINK) == 0

    run(story())


def test_what_one_cluster_says_under_the_name_of_another_document_is_not_believed() -> None:
    async def story() -> None:
        shelf = SchemaShelf()
        liar, honest = Bench(shelf, "liar"), Bench(shelf, "honest")
        other = SimApiServer(catalog=OLD).transport()
        old = await other.request(Request("GET", FLINK))
        liar.connection.spoiled[FLINK] = answer(old.body)
        assert await liar.reasons(job()) == []
        assert await honest.reasons(job()) == []
        assert honest.asked(FLINK) == 1
        # It is asked again with the next index, and not before.
        assert await liar.reasons(job()) == []
        assert liar.asked(FLINK) == 1
        del liar.connection.spoiled[FLINK]
        await asyncio.sleep(SCHEMA_INTERVAL_S)
        assert await liar.reasons(job(nonsense=1)) == ["SchemaMismatch"]

    run(story())


@pytest.mark.parametrize("body", [b"", b"[1]", b"null", b'"text"', b'{"components":[]}', b"\xff{"])
def test_documents_that_say_nothing_hold_nothing_up(body: bytes) -> None:
    assert cluster_schemas._schema_in("api/v1", _hash(body), body) is not None

    async def story() -> None:
        bench = Bench(SchemaShelf())
        index = {"paths": {"apis/flink.apache.org/v1beta1": {"serverRelativeURL": f"{FLINK}?hash={_hash(body)}"}}}
        bench.connection.spoiled = {"/openapi/v3": answer(orjson.dumps(index)), FLINK: answer(body)}
        assert await bench.reasons(job(nonsense=1)) == []
        assert bench.asked(FLINK) == 1

    run(story())


def _hash(body: bytes) -> str:
    return hashlib.sha512(body).hexdigest().upper()


def test_a_document_that_is_too_large_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_schemas, "DOCUMENT_BYTES_MAX", 1000)

    async def story() -> None:
        bench = Bench(SchemaShelf())
        assert await bench.reasons(job(nonsense=1)) == []
        assert bench.asked(FLINK) == 1

    run(story())


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"{}",
        b'{"paths": 5}',
        b'{"paths": {"apis/flink.apache.org/v1beta1": {"serverRelativeURL": 5}}}',
        b'{"paths": {"apis/flink.apache.org/v1beta1": {"serverRelativeURL": "/openapi/v3/x?hash=../../secret"}}}',
        b'{"paths": {"../x": {"serverRelativeURL": "?hash=' + b"A" * 128 + b'"}}}',
    ],
)
def test_an_index_that_says_nothing_is_asked_again_soon(index: bytes) -> None:
    async def story() -> None:
        bench = Bench(SchemaShelf())
        bench.connection.spoiled["/openapi/v3"] = answer(index)
        assert await bench.reasons(job(nonsense=1)) == []
        assert await bench.reasons(job(nonsense=1)) == []
        assert bench.asked("/openapi/v3") == 1
        assert bench.asked(FLINK) == 0
        del bench.connection.spoiled["/openapi/v3"]
        await asyncio.sleep(DISCOVERY_INTERVAL_S)
        assert await bench.reasons(job(nonsense=1)) == ["SchemaMismatch"]

    run(story())


def test_a_kind_that_comes_with_the_release_is_not_looked_at() -> None:
    async def story() -> None:
        bench = Bench(SchemaShelf())
        bench.server.set_catalog(load_catalog().variant(without_kinds=["FlinkDeployment"]))
        objects = {ObjectKey.of(job()): job()}
        assert [one.code for one in (await bench.schemas.reasons(objects)).values()] == ["KindMissing"]
        assert await bench.schemas.reasons(objects, frozenset({("flink.apache.org", "FlinkDeployment")})) == {}
        assert await bench.schemas.reasons(objects, frozenset({("flink.apache.org", "")})) == {}

    run(story())


def test_the_shelf_keeps_so_many_and_forgets_what_was_not_asked_for_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_schemas, "DOCUMENTS_MAX", 2)

    async def story() -> None:
        shelf, read = SchemaShelf(), list[bytes]()

        async def get(body: bytes) -> None:
            async def exchange() -> bytes:
                read.append(body)
                return body

            assert await shelf.get("api/v1", _hash(body), exchange) is not None

        for body in (b"1", b"2", b"1", b"3", b"1", b"2"):
            await get(body)
        assert read == [b"1", b"2", b"3", b"2"]

    run(story())


def test_with_threads_it_says_the_same() -> None:
    async def story() -> None:
        with ThreadPoolExecutor(1) as executor:
            bench = Bench(SchemaShelf(executor))
            assert await bench.reasons(job(nonsense=1)) == ["SchemaMismatch"]
            assert await bench.reasons(job()) == []

    asyncio.run(story())


# ---- what becomes of a batch ---------------------------------------------------------------------------------------


def intent(manifest: Manifest, verb: Verb = Verb.APPLY) -> Intent:
    key = ObjectKey.of(manifest)
    version = str(manifest["apiVersion"])
    return Intent(f"{verb}-{key}", "rollout:1", "start", TARGET, verb, key, version, "d" * 16, 0, 0, epoch=1)


async def batch(
    bench: Bench,
    manifests: list[Manifest],
    rules: dict[ObjectKey, ObjectRule] | None = None,
    live: Manifest | NotSeen | None = None,
    *more: Intent,
) -> list[tuple[str, str, Reason | None]]:
    """Kind, state and reason of each intent of a batch that applies `manifests`; [] if it is to be carried out."""
    objects = {ObjectKey.of(one): one for one in manifests}
    sent = SentRelease("d" * 16, "sample/orders", "o", objects, "fleet", by_object=rules or {})

    async def sent_of(one: Intent) -> SentRelease:
        del one
        return sent

    intents = [*map(intent, manifests), *more]
    results = await bench.schemas.refused(intents, sent_of, lambda key: live if key.kind == "FlinkDeployment" else None)
    assert [result.intent for result in results] in ([], [one.id for one in intents])
    return [(one.key.kind, str(result.state), result.reason) for one, result in zip(intents, results, strict=False)]


def test_one_object_that_does_not_fit_gives_up_all_of_the_batch() -> None:
    async def story() -> None:
        bench = Bench(SchemaShelf())
        assert await batch(bench, [config(a="1"), job()]) == []
        gone = intent({**config(), "metadata": {"name": "gone", "namespace": "orders"}}, Verb.DELETE)
        results = await batch(bench, [config(a="1"), job(nonsense=1)], None, None, gone)
        assert [(kind, state) for kind, state, _ in results] == [
            ("ConfigMap", IntentState.ABANDONED),
            ("FlinkDeployment", IntentState.FAILED),
            ("ConfigMap", IntentState.ABANDONED),
        ]
        codes = [reason.code for _, _, reason in results if reason is not None]
        assert codes == ["NothingWritten", "SchemaMismatch", "NothingWritten"]
        # Where two do not fit, the first one has failed.
        both = await batch(bench, [config(a=1), job(nonsense=1)])
        assert [state for _, state, _ in both] == [IntentState.FAILED, IntentState.ABANDONED]

    run(story())


def test_a_batch_that_only_deletes_asks_for_nothing() -> None:
    async def story() -> None:
        bench = Bench(SchemaShelf())
        assert await batch(bench, [], None, None, intent(job(), Verb.DELETE)) == []
        assert bench.connection.asked == []

    run(story())


def test_what_is_not_sent_is_not_looked_at() -> None:
    """A field that is ignored is declared when the object is created, and left out once it is not there any more."""

    async def story() -> None:
        bench = Bench(SchemaShelf())
        declared = job(nonsense=1)
        rules = {ObjectKey.of(declared): ObjectRule(ignore=(parse_field_path("/spec/nonsense"),))}
        assert [state for _, state, _ in await batch(bench, [declared], rules, None)] == [IntentState.FAILED]
        live = {**job(), "metadata": {"name": "orders", "namespace": "orders", "uid": "u", "resourceVersion": "1"}}
        assert await batch(bench, [declared], rules, live) == []
        assert await batch(bench, [declared], rules, NOT_SEEN) == []

    run(story())
