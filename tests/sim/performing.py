"""One simulated cluster, the shipped adapter, and one intent at a time: what performing makes of it.

bench = Bench()
result = await bench.apply(config_map("settings"))
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from reconciler.core.apply_rules import DEFAULT_RULES, ObjectRule
from reconciler.core.model import (
    Intent,
    IntentResult,
    InventoryItem,
    InventoryPhase,
    Manifest,
    ObjectKey,
    Target,
    Verb,
)
from reconciler.core.ownership import stamp
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_errors import KubeError
from reconciler.shell.perform import Later, Wanted, perform
from reconciler.sim.admission import Webhook
from reconciler.sim.cluster import SimCluster
from reconciler.sim.loop import SimClock
from reconciler.sim.plan import Fault, FaultKind, Generation

OWNER = "0123456789abcdef0123456789abcdef"
TARGET = Target("sample/orders", "c0")


def config_map(name: str = "settings", **data: str) -> Manifest:
    """A ConfigMap as it is sent: with our mark."""
    plain = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "orders"}}
    return stamp({**plain, "data": data or {"a": "1"}}, OWNER, TARGET.application)


@dataclass
class Script:
    """A fault plan by the letter: `faults` by method, each used once."""

    faults: dict[str, list[FaultKind]] = field(default_factory=dict)
    points: list[str] = field(default_factory=list)

    async def io(self, point: str) -> Fault:
        """The next fault for the point's method."""
        self.points.append(point)
        for method, kinds in self.faults.items():
            if f" {method} " in f" {point} " and kinds:
                return Fault(kinds.pop(0), applied=True, wait_s=1.0)
        return Fault()


class Remembered:
    """What performing told the observer."""

    def __init__(self) -> None:
        self.seen: dict[ObjectKey, Manifest | None] = {}
        self.failures: list[KubeError] = []

    def observed(self, manifest: Manifest) -> None:
        self.seen[ObjectKey.of(manifest)] = manifest

    def gone(self, key: ObjectKey) -> None:
        self.seen[key] = None

    def failed(self, error: KubeError) -> None:
        self.failures.append(error)


class Bench:
    """A cluster, the way to it, and our inventory of it. `refusals` are what the permit says, None once it is empty."""

    def __init__(self, *webhooks: Webhook) -> None:
        self.cluster = SimCluster("c0", SimClock(asyncio.get_running_loop()), seed=1)
        self.cluster.server.webhooks += webhooks
        self.script = Script()
        self.kube = KubeCluster("c0", self.cluster.transport("c0", self.script, Generation()))
        self.seen = Remembered()
        self.items: dict[ObjectKey, InventoryItem] = {}
        self.refusals: list[Later] = []
        self.asked = 0
        self.rules = DEFAULT_RULES
        self.rule: ObjectRule | None = None
        self.later_s = 0.0
        self.former_owner = ""
        self.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "orders"}})

    async def _permit(self) -> Later | None:
        self.asked += 1
        return self.refusals.pop(0) if self.refusals else None

    def writes(self) -> list[str]:
        """Our requests that reached the server: verb, or "dry-run", each with its status."""
        return [
            f"{'dry-run' if entry.dry_run else entry.verb} {entry.code}"
            for entry in self.cluster.server.log
            if entry.manager == "reconciler" or entry.verb == "delete"
        ]

    def live(self, name: str = "settings") -> Manifest | None:
        return self.cluster.read("", "ConfigMap", "orders", name)

    def intend(self, key: ObjectKey, phase: InventoryPhase = InventoryPhase.INTENDED, uid: str = "") -> InventoryItem:
        self.items[key] = InventoryItem(TARGET, key, "v1", phase, uid)
        return self.items[key]

    async def apply(self, manifest: Manifest, *, intend: bool = True) -> IntentResult | Later:
        """Apply `manifest`, and take what is known afterwards into the inventory, as the store does."""
        key = ObjectKey.of(manifest)
        if intend and key not in self.items:
            self.intend(key)
        result = await self._perform(manifest, key, Verb.APPLY)
        if isinstance(result, IntentResult) and result.uid:
            self.items[key] = InventoryItem(TARGET, key, "v1", InventoryPhase.OWNED, result.uid, result.generation)
        return result

    async def delete(self, key: ObjectKey) -> IntentResult | Later:
        return await self._perform(None, key, Verb.DELETE)

    async def _perform(self, manifest: Manifest | None, key: ObjectKey, verb: Verb) -> IntentResult | Later:
        version = str(manifest["apiVersion"]) if manifest is not None else "v1"
        intent = Intent("i1", "rollout:r1", "start", TARGET, verb, key, version, "d1", 1, 0)
        item = self.items.get(key)
        wanted = Wanted(manifest, item, OWNER, self.rules, self.rule, former_owner=self.former_owner)
        now_wall = SimClock(asyncio.get_running_loop()).now().wall + self.later_s
        return await perform(intent, wanted, self.kube, self.seen, self._permit, now_wall)
