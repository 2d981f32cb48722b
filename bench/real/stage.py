"""A stage: everything B1 to B7 need, put up in the right order and taken down in reverse.

with Stage() as stage:
    setup = stage.set_up(applications=1000, clusters=16)
    setup.daemon.sync("app-00000")
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.real import clusters as simulated
from bench.real.clusters import SimulatedClusters
from bench.real.daemon import AGENT, Daemon
from bench.real.fleet import FULL_MAX, TAG, TEAM, BenchFleet, name_of
from bench.real.plane import Exchange, Plane
from tests.control_plane.server import call

#: Whatever does not come within this time per object counts as never.
PER_OBJECT_S = 2.0
AT_LEAST_S = 60.0
#: Where the objects of a cluster are.
LIVE_PATHS = (
    *(f"/api/v1/namespaces/{{}}/{plural}" for plural in ("serviceaccounts", "configmaps", "services")),
    "/apis/flink.apache.org/v1beta1/namespaces/{}/flinkdeployments",
)
#: What waits for the audit log looks so often; the times it then reads are the server's.
LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Setup:
    """A fleet on simulated clusters with its daemon."""

    plane: Plane
    clusters: SimulatedClusters
    fleet: BenchFleet
    daemon: Daemon

    def asked(self, mark: int) -> list[Exchange]:
        """What the daemon asked of its clusters after `mark`: other daemons may be at work on the same API server."""
        ours = {"", *self.clusters.names}
        return [each for each in self.plane.audit.since(mark, AGENT) if each.namespace in ours]

    def _writes(self, mark: int) -> list[Exchange]:
        return [each for each in self.asked(mark) if each.is_write]

    def within_s(self, objects: int) -> float:
        """How long `objects` may take."""
        return AT_LEAST_S + PER_OBJECT_S * objects

    def install(self) -> dict[str, float]:
        """Start the daemon and have it bring the whole fleet up; seconds and counts."""
        fleet, audit = self.fleet, self.plane.audit
        fleet.commit(dict.fromkeys(range(fleet.applications + fleet.out_of_reach), 0))
        objects = fleet.object_count(range(fleet.applications))
        mark = audit.mark()
        started_s = self.daemon.start()
        writes = self.writes_until(objects, mark)
        self.daemon.until_settled(fleet.applications, self.within_s(objects), active_max=fleet.out_of_reach)
        used = self.daemon.usage()
        return {
            "objects": objects,
            "wall_s": round(writes[-1].answered_s - started_s, 3),
            "cpu_s": round(used.cpu_s, 3),
            "requests": len(self.asked(mark)),
        }

    def writes_until(self, count: int, mark: int) -> list[Exchange]:
        """Wait until the daemon has made `count` writes after `mark`; all it made, in the order of their answers."""
        self.daemon.until(lambda: len(self._writes(mark)) >= count, self.within_s(count), LOOK_S)
        return sorted(self._writes(mark), key=lambda each: each.answered_s)

    def unwritten(self) -> int:
        """How many objects of the fleet are not live as they were last committed."""
        live: dict[str, Counter[int]] = defaultdict(Counter)
        for cluster in self.fleet.clusters:
            for path in LIVE_PATHS:
                for item in call(self.plane.control, "GET", path.format(cluster))[1]["items"]:
                    tag = item["metadata"].get("annotations", {}).get(TAG)
                    if tag is not None:
                        live[item["metadata"]["name"]][int(tag)] += 1
        return sum(
            self.fleet.object_count([number]) - live[name_of(number)][tag] for number, tag in self.fleet.tags.items()
        )

    def change(self, numbers: Sequence[int]) -> tuple[float, int]:
        """Commit a change of these applications and tell the daemon; when, and the place in the audit log before."""
        mark = self.plane.audit.mark()
        committed_s = self.fleet.commit({number: self.fleet.tags[number] + 1 for number in numbers})
        self.daemon.sync(name_of(numbers[0]))
        return committed_s, mark

    def work_of(self, numbers: Iterable[int]) -> dict[str, list[dict[str, Any]]]:
        """The objects of these applications by cluster, for the bare loop."""
        work: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for number in numbers:
            work[self.fleet.cluster_of(number)].extend(self.fleet.objects(number))
        return dict(work)


@dataclass
class Stage:
    """One control plane: its own, or the one that is given and goes on afterwards."""

    given: Plane | None = None
    directory: Path = field(init=False)
    plane: Plane = field(init=False)
    _stack: ExitStack = field(init=False, default_factory=ExitStack)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            self.plane = self.given or stack.enter_context(Plane(self.directory))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def set_up(
        self,
        applications: int,
        clusters: int = 1,
        *,
        silent: int = 0,
        full_max: int = FULL_MAX,
        team: int = TEAM,
        **settings: str,
    ) -> Setup:
        """A fleet on clusters of its own, and a daemon that is not started yet; beside them
        `silent` clusters that answer nothing. `team` applications lie in one directory."""
        number = self.plane.next_setup()
        directory = self.directory / f"setup-{number}"
        directory.mkdir()
        names = [f"s{number}-{name}" for name in simulated.names(clusters + silent)]
        answering, quiet = names[:clusters], names[clusters:]
        seen = self._stack.enter_context(SimulatedClusters(self.plane, directory, names, quiet))
        fleet = BenchFleet(directory / "fleet.git", applications, answering, quiet, full_max, team)
        daemon = Daemon(directory, fleet.url, seen.kubeconfigs, **settings)
        self._stack.callback(daemon.stop)
        return Setup(self.plane, seen, fleet, daemon)
