"""Chaos: the daemon's whole life with everything going wrong at once, and what has to hold all the same.

A daemon in a process of its own, with the rights that deploy/ gives, moves one application over a real cluster, which
it sees through the fault proxy, and two simulated ones. From a seed come commits, edits and deletions by hand, faults
of a tenth of all requests and of watch events, kills of the daemon, new tokens, a paused etcd and a killed API server.
Meanwhile and at the end it is asked, on the API server's side:

- nothing that every commit declared was ever deleted by us (9, 10, 11);
- a write whose outcome nobody knew was read again before it was repeated (24);
- when the faults stop and Git stands still, everything becomes what Git says (22), and is then left alone (18, 19).

    python -m tests.chaos --seed 7 --minutes 60 --output bench/results/chaos.json
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.control_plane.server import ControlPlane, call
from tests.faults.chance import RATES, RandomFaults
from tests.faults.exchange import Entry
from tests.faults.proxy import FaultProxy
from tests.integration.live_fleet import APPLICATION, Daemon, LiveFleet
from tests.integration.real_operator import GROUP, RealOperator
from tests.integration.shipped_access import CLUSTER_ACCESS, FLEET, daemon_token, install

REAL = "a1"
NAMES = (REAL, "b1", "c1")
EXTRAS_MAX = 6
#: Faults after which nobody knows whether the request was carried out.
AMBIGUOUS = ("ResetAfter", "ResetInBody", "EndInBody", "ResetBefore", "GatewayAfter", "ShortHole", "CutJson", "Garbage")
CONVERGED_WITHIN_S = 300.0
QUIET_S = 15.0
EXTRA = '      - {apiVersion: v1, kind: ConfigMap, metadata: {name: extra-NUMBER}, data: {value: "VALUE"}}\n'
NOTES = """\
  - name: notes
    type: manifests
    properties:
      objects:
      - {apiVersion: v1, kind: ConfigMap, metadata: {name: notes}, data: {image: "IMAGE"}}
"""


class ChaosError(AssertionError):
    """Something that has to hold did not; the message says what, and when."""


@dataclass(slots=True)
class Chaos:
    """One run. `counts` says what was done, for the result."""

    plane: ControlPlane
    directory: Path
    seed: int
    namespace: str
    counts: Counter[str] = field(default_factory=Counter)
    _random: random.Random = field(init=False)
    _extras: dict[int, int] = field(default_factory=dict)
    _release: int = 0
    _seen: int = 0
    _last: dict[str, Entry] = field(default_factory=dict)
    _droppable: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def run(self, seconds: float) -> dict[str, Any]:
        """Go on for so long, then let it converge. Raises ChaosError."""
        started = time.monotonic()
        with ExitStack() as stack:
            proxy = stack.enter_context(FaultProxy(self.plane.url, self.plane.ca_file))
            install(self.plane, CLUSTER_ACCESS, FLEET)
            kubeconfig = self._renew_token(proxy)
            fleet = stack.enter_context(
                LiveFleet(self.directory, list(NAMES), app=self._text(), real={REAL: kubeconfig}, impersonate={})
            )
            self._commit(fleet)
            with self._operator() as operator:
                self._live(fleet, proxy, operator, started + seconds)
            converged_s = self._converge(fleet, proxy)
            self._check(proxy)
            faults = proxy.summary()
        return {
            "seed": self.seed,
            "chaos_s": round(seconds),
            "converged_s": round(converged_s, 1),
            "requests": self.counts.pop("requests"),
            "writes": self.counts.pop("writes"),
            "done": dict(sorted(self.counts.items())),
            "faults": dict(sorted(faults.items())),
            "violations": 0,
        }

    def _renew_token(self, proxy: FaultProxy) -> Path:
        """A kubeconfig with a new token: each is good for an hour."""
        return proxy.write_kubeconfig(self.directory / "through-proxy.yaml", token=daemon_token(self.plane))

    # ---- what goes on --------------------------------------------------------------------------------------------

    def _live(self, fleet: LiveFleet, proxy: FaultProxy, operator: ExitStack, until: float) -> None:
        proxy.draw(RandomFaults(self.seed, RATES))
        daemon, begun = ExitStack(), time.monotonic()
        process = daemon.enter_context(fleet.daemon())
        try:
            while time.monotonic() < until:
                time.sleep(self._random.uniform(0.3, 2.0))
                action = self._random.choices(*zip(*ACTIONS.items(), strict=True))[0]
                if action in RESTARTING and not self._affords(time.monotonic() - begun):
                    continue
                if action == "daemon-kill" or process.process.poll() is not None:
                    if process.process.poll() is not None:
                        raise ChaosError(f"the daemon ended by itself:\n{fleet.log()[-4000:]}")
                    daemon.close()
                    process = daemon.enter_context(fleet.daemon())
                else:
                    self._act(action, fleet, proxy, operator)
                self.counts[action] += 1
                self._check(proxy)
        finally:
            daemon.close()

    def _affords(self, elapsed_s: float) -> bool:
        """Restarts are limited to so many an hour and cluster, and what is above that waits, as it should: then a run
        could not converge before the hour is over."""
        done = sum(self.counts[action] for action in RESTARTING)
        return done < RESTARTS_AT_ONCE + RESTARTS_PER_HOUR * elapsed_s / 3600

    def _act(self, action: str, fleet: LiveFleet, proxy: FaultProxy, operator: ExitStack) -> None:
        match action:
            case "token-renewed":
                self._renew_token(proxy)
            case "commit":
                self._change()
                self._commit(fleet)
            case "edit":
                path = self._some_object()
                call_patch(self.plane, path, {"data": {"image": f"by-hand-{self._random.randrange(10_000)}"}})
            case "delete":
                call(self.plane, "DELETE", self._some_object())
            case "edit-job":
                path = f"{GROUP}/namespaces/{self.namespace}/flinkdeployments/orders"
                call_patch(self.plane, path, {"spec": {"image": f"by-hand:{self._random.randrange(10_000)}"}})
            case "cluster-away":
                cluster = fleet.clusters[self._random.choice(NAMES[1:])]
                fleet.on_loop(cluster.set_unreachable, True)
                time.sleep(self._random.uniform(0.5, 4.0))
                fleet.on_loop(cluster.set_unreachable, False)
            case "etcd-paused" | "apiserver-killed":
                # The operator has no patience: it is away for as long.
                operator.close()
                program, stop, go_on = OUTAGES[action]
                self.plane.order(stop, program)
                time.sleep(self._random.uniform(0.5, 5.0))
                self.plane.order(go_on, program)
                self._answers()
                operator.enter_context(RealOperator(self.plane, self.namespace))

    def _answers(self) -> None:
        """Wait until the API server serves again."""
        until = time.monotonic() + 60
        while True:
            try:
                if call(self.plane, "GET", "/api/v1/namespaces")[0] == 200:
                    return
            except OSError:
                pass
            if time.monotonic() > until:
                raise ChaosError("the API server does not come back")
            time.sleep(0.2)

    @contextmanager
    def _operator(self) -> Iterator[ExitStack]:
        with ExitStack() as stack:
            stack.enter_context(RealOperator(self.plane, self.namespace))
            yield stack

    def _some_object(self) -> str:
        names = ["notes", *(f"extra-{number}" for number in sorted(self._extras))]
        return self._path(self._random.choice(names))

    def _path(self, name: str) -> str:
        return f"/api/v1/namespaces/{self.namespace}/configmaps/{name}"

    # ---- Git -----------------------------------------------------------------------------------------------------

    def _change(self) -> None:
        """Another release: a new image, and one object more, less or changed."""
        self._release += 1
        number = self._random.randrange(EXTRAS_MAX)
        if number in self._extras and self._random.random() < 0.5:
            del self._extras[number]
            self._droppable.add(self._path(f"extra-{number}"))
        else:
            self._extras[number] = self._random.randrange(1000)

    def _text(self) -> str:
        extras = "".join(
            EXTRA.replace("NUMBER", str(number)).replace("VALUE", str(value)) for number, value in self._extras.items()
        )
        text = APPLICATION.replace("namespace: orders", f"namespace: {self.namespace}")
        return text.replace("  policies:\n", NOTES + extras + "  policies:\n")

    def _commit(self, fleet: LiveFleet) -> None:
        image = f"orders:{self._release}"
        fleet.commit(image, **{"apps/orders/app.yaml": self._text().replace("IMAGE", image)})

    # ---- what has to hold ----------------------------------------------------------------------------------------

    def _check(self, proxy: FaultProxy) -> None:
        """Look at what reached the API server since the last time."""
        for entry in proxy.entries(since=self._seen):
            if entry.method.startswith("EVENT"):
                continue
            self._seen = max(self._seen, entry.number)
            self.counts["requests"] += 1
            before = self._last.get(entry.path)
            self._last[entry.path] = entry
            if not entry.writes:
                continue
            self.counts["writes"] += 1
            if entry.method == "DELETE" and entry.path not in self._droppable:
                raise ChaosError(f"{entry.path} was deleted and every commit declares it (request {entry.number})")
            doubtful = before is not None and before.writes and before.fault.startswith(AMBIGUOUS)
            if doubtful and before is not None and before.method == entry.method:
                raise ChaosError(
                    f"{entry.method} of {entry.path} was repeated after {before.fault} without a look "
                    f"(requests {before.number} and {entry.number})"
                )

    def _converge(self, fleet: LiveFleet, proxy: FaultProxy) -> float:
        """Faults stop, Git stands still: how long it takes until everything is what Git says, and stays so."""
        proxy.well()
        self._change()
        self._commit(fleet)
        started = time.monotonic()
        with RealOperator(self.plane, self.namespace), fleet.daemon() as daemon:
            self._until(fleet, daemon, lambda: self._is_settled(fleet) and self._is_as_declared())
            converged_s = time.monotonic() - started
            self._check(proxy)
            seen = proxy.last_number
            time.sleep(QUIET_S)
            late = [f"{entry.method} {entry.path}" for entry in proxy.entries(since=seen) if entry.writes]
            if late:
                raise ChaosError(f"written with nothing to do: {late[:5]}")
            if fleet.command("diff", "orders").returncode != 0:
                raise ChaosError("diff finds differences although everything is settled")
        return converged_s

    def _until(self, fleet: LiveFleet, daemon: Daemon, condition: Any) -> None:
        deadline = time.monotonic() + CONVERGED_WITHIN_S
        while not condition():
            if daemon.process.poll() is not None:
                raise ChaosError(f"the daemon ended by itself:\n{fleet.log()[-4000:]}")
            if time.monotonic() > deadline:
                told = fleet.command("explain", "orders").stdout + fleet.command("status").stdout
                raise ChaosError(f"not converged within {CONVERGED_WITHIN_S:.0f} s:\n{told}\n{fleet.log()[-2000:]}")
            time.sleep(0.2)

    def _is_settled(self, fleet: LiveFleet) -> bool:
        """True if a daemon answers and says so."""
        return fleet.command("status").returncode == 0 and fleet.settled()

    def _is_as_declared(self) -> bool:
        """True if the ConfigMaps on the real cluster are those of the last commit, to the letter."""
        listed = call(self.plane, "GET", f"/api/v1/namespaces/{self.namespace}/configmaps")[1]["items"]
        found = {item["metadata"]["name"]: item.get("data") for item in listed}
        wanted = {"notes": {"image": f"orders:{self._release}"}}
        wanted |= {f"extra-{number}": {"value": str(value)} for number, value in self._extras.items()}
        found.pop("kube-root-ca.crt", None)
        edited = {name: {key: value for key, value in (data or {}).items() if key in wanted.get(name, {})}
                  for name, data in found.items()}  # fmt: skip
        return edited == wanted


#: What is done, and how often beside the rest.
ACTIONS: dict[str, float] = {
    "commit": 8, "edit": 10, "edit-job": 4, "delete": 6, "cluster-away": 3, "daemon-kill": 2, "etcd-paused": 1,
    "apiserver-killed": 1, "token-renewed": 1,
}  # fmt: skip
#: What restarts the job, and so spends of the hour's restarts: fewer than policies/limits.yaml allows.
RESTARTING = ("commit", "edit-job")
RESTARTS_AT_ONCE = 15
RESTARTS_PER_HOUR = 30
OUTAGES = {
    "etcd-paused": ("etcd", "pause", "resume"),
    "apiserver-killed": ("kube-apiserver", "kill", "start"),
}


def call_patch(plane: ControlPlane, path: str, body: Any) -> None:
    """A merge patch by hand; what is not there is not edited."""
    status, found = call(plane, "GET", path)
    if status == 200:
        merged = {**found, **{name: {**found.get(name, {}), **value} for name, value in body.items()}}
        merged["metadata"].pop("managedFields", None)
        call(plane, "PUT", f"{path}?fieldManager=kubectl-edit", merged)


def told(result: dict[str, Any]) -> str:
    """The result as JSON, for people and files."""
    return json.dumps(result, indent=2) + "\n"
