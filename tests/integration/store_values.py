"""Small values to put into a store, and a store opened in each of the ways it can be."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from reconciler.core.model import (
    Assignment,
    FrozenPlan,
    Intent,
    InventoryItem,
    InventoryPhase,
    ObjectKey,
    Release,
    Rollout,
    RolloutKind,
    RolloutState,
    RolloutTarget,
    Target,
    Verb,
    Wave,
    release_of,
)
from reconciler.shell.ports import Store, Tx
from reconciler.shell.store import open_store

T = TypeVar("T")

APPLICATION = "sample/orders"
TARGETS = tuple(Target(APPLICATION, f"eu-{number}") for number in range(4))
#: memory or file, in the caller's thread or in a writer's, reading beside it or in turn.
VARIANTS = ("memory-inline", "memory-executor", "file-inline", "file-executor", "file-readers")


@dataclasses.dataclass
class Opened:
    """A store as production sees it: through the port alone."""

    store: Store

    def write(self, work: Callable[[Tx], T]) -> T:
        return asyncio.run(self.store.transact("test", work))

    def write_all(self, *works: Callable[[Tx], None]) -> None:
        """Several in one transaction."""

        def work(tx: Tx) -> None:
            for one in works:
                one(tx)

        self.write(work)

    def read(self, work: Callable[[Tx], T]) -> T:
        return asyncio.run(self.store.read("test", work))


@contextmanager
def opened(variant: str, directory: Path) -> Iterator[Opened]:
    """Open a store, close it at the end; opened again with a file it is the same one."""
    kind, _, mode = variant.partition("-")
    with ExitStack() as stack:
        threads = [
            stack.enter_context(ThreadPoolExecutor(1)) for _ in range(("inline", "executor", "readers").index(mode))
        ]
        store = open_store(
            ":memory:" if kind == "memory" else directory / "reconciler.db",
            new_id=lambda: "installation-1",
            executor=threads[0] if threads else None,
            readers=threads[1] if len(threads) > 1 else None,
        )
        try:
            yield Opened(store)
        finally:
            asyncio.run(store.close())


def release(content: str = "1", application: str = APPLICATION) -> Release:
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"content": content}}
    return release_of(application, (manifest,))


def plan(*waves: tuple[Target, ...]) -> FrozenPlan:
    return FrozenPlan(
        waves=tuple(Wave(f"wave-{number}", targets, 300.0, 1, 0, 0) for number, targets in enumerate(waves)),
        progress_deadline_s=900.0,
        on_failure="rollback",
        mandatory=True,
        policy="standard",
        hash="plan-1",
        check_interval_s=10.0,
    )


def rollout(identity: str = "r1", *waves: tuple[Target, ...], source: str = "fleet") -> Rollout:
    return Rollout(
        id=identity,
        source=source,
        application=APPLICATION,
        kind=RolloutKind.CHANGE,
        revision="a" * 40,
        plan=plan(*(waves or (TARGETS[:1], TARGETS[1:]))),
        state=RolloutState.ACTIVE,
        reason=None,
        created_wall=100.0,
    )


def rows(of: Rollout, to: Release) -> list[RolloutTarget]:
    return [
        RolloutTarget(target, number, to.digest, None, None)
        for number, wave in enumerate(of.plan.waves)
        for target in wave.targets
    ]


def assignment(target: Target, to: Release, **fields: Any) -> Assignment:
    return dataclasses.replace(Assignment(target, to.digest, "fleet"), **fields)


def key(name: str = "settings") -> ObjectKey:
    return ObjectKey("", "ConfigMap", "orders", name)


def item(target: Target, phase: InventoryPhase, name: str = "settings", uid: str = "") -> InventoryItem:
    return InventoryItem(target, key(name), "v1", phase, uid)


def intent(
    identity: str,
    target: Target = TARGETS[0],
    *,
    order: int = 0,
    verb: Verb = Verb.APPLY,
    owner: str = "rollout:r1",
    name: str = "settings",
    digest: str = "d1",
) -> Intent:
    return Intent(identity, owner, "start", target, verb, key(name), "v1", digest, 1, order, epoch=1)
