"""The shipped observer behind the fault proxy: whatever happens on the way, its cache is the truth in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest

from reconciler.core.model import Manifest, ObjectKey
from reconciler.shell import follow
from reconciler.shell.observe import Observer
from tests.control_plane.server import ControlPlane, call
from tests.faults import faults
from tests.faults.certificates import Certificate
from tests.faults.chance import RandomFaults
from tests.faults.faults import EventFault, Fault
from tests.faults.parts import (
    CONFIG_MAP,
    config_map,
    connected,
    eventually,
    impatient,
    kubeconfig_through,
    namespace_for,
    observing,
    proxied,
    put,
    remove,
    truth,
)
from tests.faults.proxy import FaultProxy, everything, lists, watches

pytestmark = pytest.mark.controlplane


@pytest.fixture(autouse=True)
def impatient_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timeouts and pauses that a test can wait for; what they are is not what is tested here."""
    impatient(monkeypatch, 3.0)
    monkeypatch.setattr(follow, "BACKOFF_START_S", 0.05)
    monkeypatch.setattr(follow, "BACKOFF_MAX_S", 0.5)


def known(observer: Observer) -> dict[ObjectKey, Manifest]:
    """What the cache holds."""
    cache = observer.cache
    found = {}
    for key in cache.keys(CONFIG_MAP.group_kind):
        live = cache.live(key)
        assert isinstance(live, dict)
        found[key] = live
    return found


class Story:
    """Changes to a namespace, made behind everybody's back: a fixed course of creations, edits and deletions."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.plane = plane
        self.namespace = namespace
        self._edits = 0

    def begin(self) -> None:
        """Three objects."""
        for name in ("kept", "edited", "removed"):
            put(self.plane, config_map(self.namespace, name, label=self.namespace, k="0"))

    def change(self) -> None:
        """One edit, one removal, one creation, one object that is made anew under its name."""
        self._edits += 1
        put(self.plane, config_map(self.namespace, "edited", label=self.namespace, k=str(self._edits)))
        remove(self.plane, self.namespace, "removed")
        put(self.plane, config_map(self.namespace, f"made-{self._edits}", label=self.namespace))
        put(self.plane, config_map(self.namespace, "removed", label=self.namespace, k=str(self._edits)))
        remove(self.plane, self.namespace, "kept")
        put(self.plane, config_map(self.namespace, "kept", label=self.namespace, again=str(self._edits)))

    def told(self, observer: Observer) -> Callable[[], bool]:
        """The observer knows what the API server holds."""
        now = truth(self.plane, self.namespace)
        return lambda: known(observer) == now


async def in_thread(work: Callable[[], Any]) -> Any:
    """Direct requests block, and the observer runs on this loop."""
    return await asyncio.get_running_loop().run_in_executor(None, work)


class Case(NamedTuple):
    """What goes wrong while things change: a fault of requests, or one of events."""

    fault: Fault | None = None
    when: Callable[[Any], bool] = everything
    times: int | None = 6
    events: EventFault | None = None
    of_types: tuple[str, ...] = ("ADDED", "MODIFIED", "DELETED")


CASES = [
    Case(events=faults.Lost(), times=None),
    Case(events=faults.Doubled(), times=None),
    Case(events=faults.Delayed(0.7), times=None, of_types=("ADDED",)),
    Case(events=faults.Delayed(0.7), times=None, of_types=("DELETED",)),
    Case(events=faults.Lost(), times=None, of_types=("DELETED",)),
    Case(events=faults.Mangled(), times=3),
    Case(events=faults.Cut(), times=3),
    Case(events=faults.Silence(), times=1),
    Case(events=faults.Refused(), times=2),
    Case(events=faults.Refused(faults.INTERNAL), times=2),
    Case(faults.TOO_OLD, watches, 3),
    Case(faults.EndsAtOnce(), watches, None),
    Case(faults.Gateway(503), watches, None),
    Case(faults.ResetBefore(), watches, None),
    Case(faults.EXPIRED, lists, 3),
    Case(faults.TOO_MANY),
    Case(faults.INTERNAL),
    Case(faults.Gateway(502)),
    Case(faults.Gateway(403)),
    Case(faults.UNAUTHORIZED),
    Case(faults.ResetBefore()),
    Case(faults.ResetAfter(), times=3),
    Case(faults.ResetInBody(), lists),
    Case(faults.EndInBody(), lists),
    Case(faults.CutJson(), lists),
    Case(faults.Garbage(), lists),
    Case(faults.ShortList(), lists, None),
    Case(faults.Drip(pause_s=0.02), lists),
    Case(faults.BlackHole(), lists, 1),
]


def case_name(case: Case) -> str:
    """For the test's id."""
    parts = [str(case.fault or case.events), *(case.of_types if case.events and len(case.of_types) == 1 else ())]
    return "-".join(parts).replace("()", "")[:60]


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_the_cache_is_true_in_the_end(control_plane: ControlPlane, tmp_path: Path, case: Case) -> None:
    """Also while the fault lasts wherever there is another way to know, and always when it is over."""
    namespace = f"observer-{CASES.index(case)}"
    story = Story(control_plane, make_namespace(control_plane, namespace))
    story.begin()

    async def work(proxy: FaultProxy) -> None:
        async with (
            connected(kubeconfig_through(proxy, control_plane, tmp_path)) as cluster,
            observing(cluster, namespace) as observer,
        ):
            await eventually(await in_thread(lambda: story.told(observer)))
            rule = play(proxy, case)
            await in_thread(story.change)
            await in_thread(story.change)
            if case.fault is not None:
                await eventually(lambda: rule.played >= (case.times or 2))
            await eventually(await in_thread(lambda: story.told(observer)))
            rule.end()
            assert rule.played > 0
            await in_thread(story.change)
            await eventually(await in_thread(lambda: story.told(observer)))
            await eventually(lambda: observer.problem(CONFIG_MAP.group_kind) is None)

    with proxied(control_plane) as proxy:
        asyncio.run(work(proxy))


def play(proxy: FaultProxy, case: Case) -> Any:
    """Begin the fault of a case."""
    if case.events is not None:
        return proxy.play_events(case.events, when=lambda event: event.type in case.of_types, times=case.times)
    assert case.fault is not None
    rule = proxy.play(case.fault, when=case.when, times=case.times)
    if case.when is watches:
        proxy.cut()  # the open one would not ask
    return rule


def make_namespace(plane: ControlPlane, name: str) -> str:
    """A namespace by name, made directly."""
    assert call(plane, "POST", "/api/v1/namespaces", {"metadata": {"name": name}})[0] in (201, 409)
    return name


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_faults_change_nothing_in_the_end(control_plane: ControlPlane, tmp_path: Path, seed: int) -> None:
    print(f"seed {seed}")
    namespace = make_namespace(control_plane, f"observer-random-{seed}")
    story = Story(control_plane, namespace)
    story.begin()
    rates = {"event-lost": 0.2, "event-doubled": 0.1, "event-delayed": 0.1, "event-mangled": 0.05, "event-gone": 0.05}
    rates |= {"watch-cut": 0.05, "watch-silent": 0.05, "watch-ends": 0.1, "gone": 0.05, "reset-after": 0.05}
    rates |= {"cut-json": 0.05, "unavailable": 0.05, "short-list": 0.05, "reset-in-body": 0.05, "internal": 0.05}

    async def work(proxy: FaultProxy) -> None:
        async with (
            connected(kubeconfig_through(proxy, control_plane, tmp_path)) as cluster,
            observing(cluster, namespace, watch_idle_s=3) as observer,
        ):
            proxy.draw(RandomFaults(seed, rates))
            generator = Random(seed)
            for _ in range(6):
                await in_thread(story.change)
                await asyncio.sleep(generator.random())
            proxy.draw(None)
            await eventually(await in_thread(lambda: story.told(observer)))

    with proxied(control_plane) as proxy:
        asyncio.run(work(proxy))
        assert sum(proxy.summary().values()) >= 5, proxy.summary()


def test_an_idle_watch_is_given_up_and_opened_anew(
    control_plane: ControlPlane, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    namespace = namespace_for(control_plane, request)

    async def work(proxy: FaultProxy) -> None:
        async with (
            connected(kubeconfig_through(proxy, control_plane, tmp_path)) as cluster,
            observing(cluster, namespace, check_interval_s=1000, watch_idle_s=2) as observer,
        ):
            await eventually(lambda: sum("watch" in entry.query for entry in proxy.entries()) > 0)
            proxy.play_events(faults.Silence(), times=1)
            lost = await in_thread(lambda: put(control_plane, config_map(namespace, "a", label=namespace)))
            # No list finds it: only the next watch, which goes on from before it.
            await eventually(lambda: observer.live(ObjectKey.of(lost)) == lost)
            assert sum(entry.query.get("watch") == "1" for entry in proxy.entries()) > 1

    with proxied(control_plane) as proxy:
        asyncio.run(work(proxy))


UNHEARD: list[tuple[Fault | Certificate, str]] = [
    (faults.BlackHole(), "NoAnswer"),
    (faults.ResetBefore(), "NoAnswer"),
    (faults.Gateway(503), "UnexpectedAnswer"),
    (faults.Gateway(403), "Forbidden"),
    (faults.UNAUTHORIZED, "Unauthorized"),
    (faults.INTERNAL, "InternalError"),
    (faults.TOO_MANY, "TooManyRequests"),
    (faults.CutJson(), "UnexpectedAnswer"),
    (Certificate.EXPIRED, "Unreachable"),
    (Certificate.UNKNOWN_AUTHORITY, "Unreachable"),
]


@pytest.mark.parametrize(("fault", "code"), UNHEARD, ids=[str(fault)[:40] for fault, _ in UNHEARD])
def test_what_says_nothing_of_the_cluster_does_not_count_as_heard(
    control_plane: ControlPlane, tmp_path: Path, fault: Fault | Certificate, code: str
) -> None:
    namespace = make_namespace(control_plane, f"observer-unheard-{[one for one, _ in UNHEARD].index(fault)}")

    async def work(proxy: FaultProxy) -> None:
        async with (
            connected(kubeconfig_through(proxy, control_plane, tmp_path)) as cluster,
            observing(cluster, namespace, watch_idle_s=2) as observer,
        ):
            await eventually(lambda: observer.observed_at(CONFIG_MAP.group_kind) is not None)
            if isinstance(fault, Certificate):
                proxy.present(fault)
            else:
                proxy.play(fault)
                proxy.cut()
            # What was on its way when the fault began may still arrive.
            await eventually(lambda: observer.reason is not None and observer.reason.code == code)
            heard_at, since = observer.heard_at, proxy.last_number
            if not isinstance(fault, Certificate):
                await eventually(lambda: proxy.last_number >= since + 3)
            assert observer.heard_at == heard_at
            assert observer.reason is not None
            proxy.well()
            proxy.cut()
            await eventually(lambda: (observer.heard_at or 0.0) > (heard_at or 0.0) and observer.reason is None)

    with proxied(control_plane) as proxy:
        asyncio.run(work(proxy))
