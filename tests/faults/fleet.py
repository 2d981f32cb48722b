"""A daemon in a process of its own whose one real cluster stands behind the fault proxy, beside simulated ones. It has
the rights that deploy/ gives, and no others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.control_plane.server import ControlPlane, call
from tests.faults.exchange import Entry
from tests.faults.proxy import FaultProxy
from tests.integration.live_fleet import APPLICATION, LiveFleet
from tests.integration.real_operator import GROUP, RealOperator
from tests.integration.shipped_access import CLUSTER_ACCESS, FLEET, daemon_token, install

#: What takes longer counts as never: retries back off up to half a minute, and the machine may be busy.
WITHIN_S = 90.0
#: The component that the tests watch: an object without a controller of its own, so that every write is the daemon's.
NOTES = """\
  - name: notes
    type: manifests
    properties:
      objects:
      - {apiVersion: v1, kind: ConfigMap, metadata: {name: notes}, data: {image: "IMAGE"}}
"""
#: The same application without its job.
WITHOUT_JOBS = f"""\
apiVersion: core.oam.dev/v1beta1
kind: Application
metadata: {{name: orders}}
spec:
  components:
{NOTES}  policies:
  - {{type: topology, properties: {{clusterLabelSelector: {{}}, namespace: NAMESPACE, createNamespace: true}}}}
"""


@dataclass(slots=True)
class FaultyFleet:
    """The fleet, its proxy, and the API server asked directly."""

    fleet: LiveFleet
    proxy: FaultProxy
    plane: ControlPlane
    namespace: str
    real: str

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; what takes longer than WITHIN_S counts as never, and everybody's story is
        told."""
        try:
            self.fleet.until(condition, WITHIN_S)
        except AssertionError:
            for name in self.fleet.names:
                print(name, json.dumps(self.explained(name), indent=1))
            print(json.dumps(self.fleet.newest(), indent=1))
            print(*self.proxy.entries()[-60:], sep="\n")
            print(self.fleet.log()[-4000:])
            raise

    def settle(self) -> None:
        """Wait until everything is well."""
        self.until(self.fleet.settled)

    @property
    def notes_path(self) -> str:
        """Where the ConfigMap is."""
        return f"/api/v1/namespaces/{self.namespace}/configmaps/notes"

    @property
    def job_path(self) -> str:
        """Where the FlinkDeployment is."""
        return f"{GROUP}/namespaces/{self.namespace}/flinkdeployments/orders"

    def live(self, path: str) -> dict[str, Any] | None:
        """An object as the API server has it, None without it."""
        status, found = call(self.plane, "GET", path)
        return found if status == 200 else None

    def image(self) -> str:
        """What the ConfigMap says of the release, "" without one."""
        found = self.live(self.notes_path)
        return str(found["data"]["image"]) if found else ""

    def has(self, image: str) -> bool:
        """True if the ConfigMap is that of this release."""
        return self.image() == image

    def simulated_image(self, cluster: str) -> str:
        """What a simulated cluster's job runs, "" without one."""
        read = self.fleet.clusters[cluster].read
        found = self.fleet.on_loop(read, "flink.apache.org", "FlinkDeployment", self.namespace, "orders")
        return str(found["spec"]["image"]) if found else ""

    def without_notes(self, image: str) -> None:
        """Commit the fleet without the ConfigMap; one of one target's objects may be pruned."""
        text = application(self.namespace).replace(NOTES, "").replace("IMAGE", image)
        self.fleet.commit(image, **{"apps/orders/app.yaml": text})

    def entries(self, path: str, since: int) -> list[Entry]:
        """What the daemon asked of one object."""
        return self.proxy.entries(path=path, since=since)

    def of(self, answer: list[dict[str, Any]], cluster: str) -> dict[str, Any]:
        """The entry of one cluster."""
        return next(entry for entry in answer if entry["cluster"] == cluster)

    def cluster(self, name: str) -> dict[str, Any]:
        """A cluster as the daemon shows it."""
        return self.of(self.fleet.ask("clusters")["clusters"], name)

    def explained(self, name: str) -> dict[str, Any]:
        """What blocks the application on one cluster."""
        answer: dict[str, Any] = self.fleet.ask("explain", "orders", "--cluster", name)
        return answer

    def says(self, words: str) -> bool:
        """True if the daemon gives these words as the reason."""
        return words in str(self.explained(self.real)["message"])

    def health(self, name: str) -> dict[str, Any]:
        """The first line on a cluster's health; the command itself fails, for not everything is healthy."""
        done = self.fleet.command("health", "orders", "-o", "json")
        return self.of(json.loads(done.stdout), name)

    def states(self) -> dict[str, int]:
        """The application's targets by state."""
        states: dict[str, int] = self.fleet.ask("apps")["applications"][0]["states"]
        return states


def application(namespace: str) -> str:
    """The application of these tests, in a namespace of the test's own."""
    text = APPLICATION.replace("namespace: orders", f"namespace: {namespace}")
    return text.replace("  policies:\n", NOTES + "  policies:\n")


@contextmanager
def faulty_fleet(
    plane: ControlPlane,
    directory: Path,
    namespace: str,
    names: tuple[str, ...] = ("a1", "c1"),
    real: str = "a1",
    token: str | None = None,
    jobs: bool = True,
) -> Iterator[FaultyFleet]:
    """A running daemon that has brought the first release everywhere. `real` names the cluster behind the proxy;
    without `jobs` the application is the ConfigMap alone, for the operator's model does not live through outages."""
    install(plane, CLUSTER_ACCESS, FLEET)
    with FaultProxy(plane.url, plane.ca_file) as proxy:
        path = proxy.write_kubeconfig(directory / "through-proxy.yaml", token=token or daemon_token(plane))
        text = application(namespace) if jobs else WITHOUT_JOBS.replace("NAMESPACE", namespace)
        with (
            LiveFleet(directory, list(names), app=text, real={real: path}, impersonate={}) as fleet,
            RealOperator(plane, namespace) if jobs else nullcontext(),
        ):
            fleet.commit("orders:1")
            with fleet.daemon() as daemon:
                daemon.ready()
                fleet.until(fleet.settled, WITHIN_S)
                yield FaultyFleet(fleet, proxy, plane, namespace, real)
