"""An observer over a SmallApi with what it told, and virtual time, for the observer's tests.

@simulated
async def test_something() -> None:
    async with observing(SmallApi()) as world:
        await asyncio.sleep(1)
        assert world.spec("a") is None
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from reconciler.core.model import ObjectKey
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.observe import Kind, Observer
from reconciler.shell.scope import Scope
from reconciler.sim.loop import SimClock, run
from tests.sim.observe_world import KINDS, OWNER, SmallApi

FLINK = Kind("flink.apache.org/v1beta1", "FlinkDeployment")
CONFIG = Kind("v1", "ConfigMap")
ALL = [Kind(*pair) for pair in KINDS.values()]


class World:
    """An observer over a SmallApi, with what it told."""

    def __init__(self, api: SmallApi, scope: Scope, **settings: Any) -> None:
        self.api = api
        self.changed: list[ObjectKey] = []
        self.heard = 0
        self.clock = SimClock(asyncio.get_running_loop())
        self.cluster = KubeCluster("small", api)
        self.observer = Observer(
            self.cluster,
            clock=self.clock,
            scope=scope,
            selector=OWNER,
            jitter=Random(7).random,
            on_change=self._note,
            on_heard=self._hear,
            **settings,
        )

    def _note(self, keys: Sequence[ObjectKey]) -> None:
        self.changed.extend(keys)

    def _hear(self) -> None:
        self.heard += 1

    def spec(self, name: str, kind: str = "FlinkDeployment") -> Any:
        """The spec that the observer knows: None for absent, NOT_SEEN."""
        live = self.observer.live(self.api.key(name, kind))
        return live["spec"] if isinstance(live, dict) else live

    def assert_true_to_the_cluster(self) -> None:
        """Every object of the cluster is known as it is, and nothing else is."""
        for key, manifest in self.api.objects.items():
            if OWNER in manifest["metadata"]["labels"]:
                assert self.observer.live(key) == manifest, key
        for kind in KINDS.values():
            for key in self.observer.cache.keys(Kind(*kind).group_kind):
                assert self.observer.live(key) == self.api.objects.get(key), key


@asynccontextmanager
async def observing(api: SmallApi, kinds: Sequence[Kind] = (FLINK,), **settings: Any) -> AsyncIterator[World]:
    """A world that observes `kinds`; no task of it may fail, and all of them end."""
    failures: list[tuple[str, BaseException]] = []
    scope = Scope("test", on_failure=lambda name, error: failures.append((name, error)))
    world = World(api, scope, **settings)
    world.observer.set_kinds(kinds)
    try:
        yield world
    finally:
        assert await scope.close(timeout_s=5) == ()
        assert failures == []
        assert api.open_now == 0
        assert not world.observer.busy


def simulated(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run an async test in virtual time."""

    def wrapper() -> None:
        run(test())

    wrapper.__name__, wrapper.__doc__ = test.__name__, test.__doc__
    return wrapper
