"""The shipped client behind the fault proxy: every fault has its typed error, and nothing is ever sent twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from reconciler.core.model import ObjectKey
from reconciler.shell import kube_errors as errors
from reconciler.shell.kube_answers import WatchEvent
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_errors import Outcome
from tests.control_plane.server import ControlPlane, call
from tests.faults import faults
from tests.faults.certificates import Certificate
from tests.faults.faults import Fault
from tests.faults.parts import (
    config_map,
    connected,
    impatient,
    kubeconfig_through,
    namespace_for,
    path_of,
    proxied,
    put,
)
from tests.faults.proxy import FaultProxy

pytestmark = pytest.mark.controlplane

READ, WRITE = Outcome.TEMPORARY, Outcome.AMBIGUOUS


class Case(NamedTuple):
    """A fault and what it means: error, reason, outcome of a read and of a write, Retry-After, did the API server
    answer, did it carry the request out."""

    fault: Fault
    error: type[errors.KubeError]
    code: str
    of_read: Outcome = READ
    of_write: Outcome = WRITE
    retry_after_s: float | None = None
    answered: bool = False
    sent: bool = False


T = Outcome.TEMPORARY
CASES = [
    Case(faults.Says(429, "TooManyRequests", retry_after_s=7), errors.BusyError, "TooManyRequests", T, T, 7, True),
    Case(faults.TOO_MANY, errors.BusyError, "TooManyRequests", T, T, None, True),
    Case(faults.Gateway(429, retry_after_s=3), errors.BusyError, "TooManyRequests", T, T, 3, True),
    Case(faults.CONFLICT, errors.ObjectConflictError, "Conflict", T, T, None, True),
    Case(faults.EXPIRED, errors.GoneError, "Gone", T, T, None, True),
    Case(faults.INTERNAL, errors.ServerError, "InternalError", T, WRITE, None, True),
    Case(faults.Gateway(500), errors.ServerError, "UnexpectedAnswer"),
    Case(faults.Gateway(502), errors.ServerError, "UnexpectedAnswer"),
    Case(faults.Gateway(503, retry_after_s=5), errors.ServerError, "UnexpectedAnswer", T, WRITE, 5),
    Case(faults.Gateway(504), errors.ServerError, "UnexpectedAnswer"),
    Case(faults.GatewayAfter(504), errors.ServerError, "UnexpectedAnswer", sent=True),
    Case(faults.Gateway(403), errors.ForbiddenError, "Forbidden", T, T),
    Case(faults.Gateway(401), errors.UnauthorizedError, "Unauthorized", T, T),
    Case(faults.Gateway(404), errors.ServerError, "UnexpectedAnswer"),
    Case(faults.UNAUTHORIZED, errors.UnauthorizedError, "Unauthorized", T, T),
    Case(faults.FORBIDDEN, errors.ForbiddenError, "Forbidden", Outcome.PERMANENT, Outcome.PERMANENT, None, True),
    Case(faults.ResetBefore(), errors.UnreachableError, "NoAnswer"),
    Case(faults.ResetAfter(), errors.UnreachableError, "NoAnswer", sent=True),
    Case(faults.ResetInBody(), errors.UnreachableError, "NoAnswer", sent=True),
    Case(faults.EndInBody(), errors.UnreachableError, "NoAnswer", sent=True),
    Case(faults.CutJson(), errors.ServerError, "UnexpectedAnswer", sent=True),
    Case(faults.Garbage(), errors.ServerError, "UnexpectedAnswer", sent=True),
    Case(faults.Garbage(b"[]"), errors.ServerError, "UnexpectedAnswer", sent=True),
    Case(faults.Garbage(b'{"kind":"Status","status":"Success"}'), errors.ServerError, "UnexpectedAnswer", sent=True),
    Case(faults.BlackHole(), errors.UnreachableError, "NoAnswer"),
    Case(faults.BlackHole(carry_out=True), errors.UnreachableError, "NoAnswer", sent=True),
    Case(faults.Drip(pause_s=0.2, pieces=50), errors.UnreachableError, "NoAnswer", sent=True),
]
DELETION_SUCCEEDS = b'{"kind":"Status","status":"Success"}'


def on_a_loop(work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` to its end."""

    async def run() -> None:
        await work()

    asyncio.run(run())


@pytest.fixture
def impatient_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timeouts of the client that a test can wait for."""
    impatient(monkeypatch, 2.0)


async def ask(cluster: KubeCluster, verb: str, key: ObjectKey, uid: str) -> Any:
    """One exchange of each shape."""
    match verb:
        case "get":
            return await cluster.get("v1", key)
        case "list":
            return await cluster.list_versions("v1", "ConfigMap", namespace=key.namespace)
        case "apply":
            return await cluster.apply(config_map(key.namespace, key.name, k="new"), uid=uid, force=True, dry_run=False)
        case _:
            return await cluster.delete("v1", key, uid)


@pytest.mark.usefixtures("impatient_client")
@pytest.mark.parametrize("verb", ["get", "list", "apply", "delete"])
def test_every_fault_has_its_error_and_is_asked_once(
    control_plane: ControlPlane, request: pytest.FixtureRequest, tmp_path: Path, verb: str
) -> None:
    namespace = namespace_for(control_plane, request)

    async def work(proxy: FaultProxy) -> None:
        async with connected(kubeconfig_through(proxy, control_plane, tmp_path)) as cluster:
            await cluster.resource("v1", "ConfigMap")
            for number, case in enumerate(CASES):
                if verb == "delete" and case.fault == faults.Garbage(DELETION_SUCCEEDS):
                    continue  # that is what a deletion that succeeds says
                manifest = put(control_plane, config_map(namespace, f"a{number}"))
                since = proxy.last_number
                rule = proxy.play(case.fault, times=1)
                with pytest.raises(errors.KubeError) as caught:
                    await ask(cluster, verb, ObjectKey.of(manifest), manifest["metadata"]["uid"])
                expected = case.of_write if verb in ("apply", "delete") else case.of_read
                error, where = caught.value, (case.fault, verb)
                assert (type(error), error.reason.code, error.outcome) == (case.error, case.code, expected), where
                assert (error.retry_after_s, error.answered) == (case.retry_after_s, case.answered), where
                # The API server's side: asked once, and carried out only where the fault says so.
                entries = proxy.entries(since=since)
                assert (rule.played, [entry.sent for entry in entries]) == (1, [case.sent]), where
                found, live = call(control_plane, "GET", path_of(namespace, f"a{number}"))
                happened = found == 404 if verb == "delete" else found == 200 and live.get("data", {}).get("k") == "new"
                assert happened is (case.sent and verb in ("apply", "delete")), where

    with proxied(control_plane) as proxy:
        on_a_loop(lambda: work(proxy))


def test_bad_certificates_are_named_and_nothing_is_sent(control_plane: ControlPlane, tmp_path: Path) -> None:
    words = {
        Certificate.EXPIRED: "its certificate has expired",
        Certificate.WRONG_NAME: "its certificate is for another name",
        Certificate.UNKNOWN_AUTHORITY: "its certificate is not from the authority that the kubeconfig trusts",
    }

    async def work(proxy: FaultProxy) -> None:
        async with connected(kubeconfig_through(proxy, control_plane, tmp_path)) as cluster:
            for certificate, message in words.items():
                proxy.present(certificate)
                with pytest.raises(errors.UnreachableError) as caught:
                    await cluster.delete("v1", ObjectKey("", "ConfigMap", "default", "none"), "1")
                assert (caught.value.outcome, caught.value.answered) == (Outcome.NOT_SENT, False)
                assert message in caught.value.reason.message, certificate
                assert proxy.entries() == []
            proxy.present(Certificate.GOOD)
            assert await cluster.server_version()

    with proxied(control_plane) as proxy:
        on_a_loop(lambda: work(proxy))


def test_a_drip_that_ends_in_time_is_an_answer(
    control_plane: ControlPlane, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    namespace = namespace_for(control_plane, request)
    made = put(control_plane, config_map(namespace, "a", k="v" * 1000))

    async def work(proxy: FaultProxy) -> None:
        proxy.play(faults.Drip(pause_s=0.001, pieces=500))
        async with connected(kubeconfig_through(proxy, control_plane, tmp_path)) as cluster:
            assert await cluster.get("v1", ObjectKey.of(made)) == made

    with proxied(control_plane) as proxy:
        on_a_loop(lambda: work(proxy))


@pytest.mark.parametrize("gone", [faults.EXPIRED, faults.EXPIRED_WITH_TOKEN], ids=["bare", "fresh-token"])
def test_a_list_whose_continue_token_has_expired_is_never_whole(
    control_plane: ControlPlane, request: pytest.FixtureRequest, tmp_path: Path, gone: Fault
) -> None:
    namespace = namespace_for(control_plane, request)
    for number in range(5):
        put(control_plane, config_map(namespace, f"a{number}"))

    async def pages(cluster: KubeCluster) -> list[tuple[int, bool]]:
        found = []
        listing = cluster.list_pages("v1", "ConfigMap", "reconciler.dev/owner", namespace=namespace, limit=2)
        async with aclosing(listing):
            async for page in listing:
                found.append((len(page.objects), page.last))  # noqa: PERF401 - what came before the error counts
        return found

    async def work(proxy: FaultProxy) -> None:
        async with connected(kubeconfig_through(proxy, control_plane, tmp_path)) as cluster:
            assert await pages(cluster) == [(2, False), (2, False), (1, True)]
            proxy.play(gone, when=lambda asked: "continue" in asked.query, times=1)
            with pytest.raises(errors.GoneError):
                await pages(cluster)
            # The token that was offered instead goes on at another moment: it is not taken.
            assert await pages(cluster) == [(2, False), (2, False), (1, True)]
            offered = dict(faults.EXPIRED_WITH_TOKEN.metadata)["continue"]
            assert offered not in [entry.query.get("continue") for entry in proxy.entries()]
            proxy.play(faults.ShortList(keep=1, keep_remaining_count=True), times=1)
            with pytest.raises(errors.GoneError) as caught:
                await pages(cluster)
            assert caught.value.reason.code == "ListNotWhole"

    with proxied(control_plane) as proxy:
        on_a_loop(lambda: work(proxy))


def named(name: str) -> Callable[[faults.Event], bool]:
    """Events of the object of this name."""
    return lambda event: event.name == name


async def until_event_of(watch: AsyncIterator[WatchEvent], key: ObjectKey) -> None:
    """Read on: bookmarks and objects of other tests may come first."""
    while (await anext(watch)).key != key:
        pass


@pytest.mark.usefixtures("impatient_client")
def test_watches_fail_in_their_own_ways(
    control_plane: ControlPlane, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    namespace = namespace_for(control_plane, request)
    cases: list[tuple[Fault | None, Any, type[errors.KubeError] | None, str]] = [
        (faults.TOO_OLD, None, errors.GoneError, "Gone"),
        (faults.Gateway(503), None, errors.ServerError, "UnexpectedAnswer"),
        (faults.BlackHole(), None, errors.UnreachableError, "NoAnswer"),
        (faults.ResetBefore(), None, errors.UnreachableError, "NoAnswer"),
        (faults.EndsAtOnce(), None, None, ""),
        (None, faults.Refused(), errors.GoneError, "Gone"),
        (None, faults.Refused(faults.INTERNAL), errors.ServerError, "InternalError"),
        (None, faults.Mangled(), errors.ServerError, "UnexpectedAnswer"),
        (None, faults.Cut(), errors.UnreachableError, "NoAnswer"),
        (None, faults.Silence(), errors.UnreachableError, "WatchIdle"),
    ]

    async def work(proxy: FaultProxy) -> None:
        async with connected(kubeconfig_through(proxy, control_plane, tmp_path)) as cluster:
            for number, (fault, event_fault, expected, code) in enumerate(cases):
                version, _ = await cluster.list_versions("v1", "ConfigMap", namespace=namespace)
                made = put(control_plane, config_map(namespace, f"a{number}"))
                if fault is not None:
                    proxy.play(fault, times=1)
                else:
                    proxy.play_events(event_fault, when=named(f"a{number}"), times=1)
                watch = cluster.watch("v1", "ConfigMap", "reconciler.dev/owner", version, idle_s=2)
                async with aclosing(watch):
                    if expected is None:
                        assert await anext(watch, None) is None
                        continue
                    with pytest.raises(errors.KubeError) as caught:
                        await until_event_of(watch, ObjectKey.of(made))
                assert (type(caught.value), caught.value.reason.code) == (expected, code), number

    with proxied(control_plane) as proxy:
        on_a_loop(lambda: work(proxy))


def test_a_token_file_is_rotated(control_plane: ControlPlane, tmp_path: Path) -> None:
    """The API server itself refuses the old token; the request after the refusal carries the new one."""
    accounts, name = "/api/v1/namespaces/default/serviceaccounts", "faults-rotated"
    token_file = tmp_path / "token"

    async def forbidden(cluster: KubeCluster) -> None:
        """Known, without any right: that is what being accepted looks like for this account."""
        with pytest.raises(errors.ForbiddenError) as caught:
            await cluster.get("v1", ObjectKey("", "ConfigMap", "default", "none"))
        assert caught.value.answered

    async def work(proxy: FaultProxy) -> None:
        token_file.write_text(control_plane.service_account_token("default", name))
        path = proxy.write_kubeconfig(tmp_path / "token.yaml", token_file=token_file)
        async with connected(path, allow_files=True) as cluster:
            await forbidden(cluster)
            assert call(control_plane, "DELETE", f"{accounts}/{name}")[0] == 200
            # The server remembers for some seconds whom it knew.
            error = await refusal_of(cluster)
            while not isinstance(error, errors.UnauthorizedError):
                error = await refusal_of(cluster, after_s=0.2)
            assert (error.outcome, error.answered) == (Outcome.TEMPORARY, False)
            token_file.write_text(control_plane.service_account_token("default", name))
            await forbidden(cluster)

    with proxied(control_plane) as proxy:
        on_a_loop(lambda: work(proxy))


async def refusal_of(cluster: KubeCluster, after_s: float = 0.0) -> errors.KubeError:
    """How a read is refused now, or a moment later."""
    await asyncio.sleep(after_s)
    with pytest.raises(errors.KubeError) as caught:
        await cluster.get("v1", ObjectKey("", "ConfigMap", "default", "none"))
    return caught.value
