"""The fleet that is measured with: applications like real ones, in a real Git repository, one file each in the
directory of its team.

An application is four objects on one cluster: a FlinkDeployment of about 4 KB, a ConfigMap, a Service and a
ServiceAccount; a commit that changes it changes all four. Gates are off: the rollout policy has one wave without a
bake, and the FlinkDeployment carries the label of the operator's own canary, whose health nobody judges, for there is
no operator. Fleets larger than FULL_MAX are filled up with applications of one ConfigMap.

    fleet = BenchFleet(directory / "fleet.git", applications=1000, clusters=["c0000"])
    fleet.commit({7: 2})             # application 7 changes; the others stay as they are
    fleet.objects(7)                 # what its cluster is then to have
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.integration.git_repository import GitRepository

#: So many applications of a fleet have four objects; what is beyond has one.
FULL_MAX = 1_000
#: So many applications lie in the directory of a team.
TEAM = 100
FULL_OBJECTS = 4
#: The annotation that says how often an application was changed.
TAG = "bench.example.com/tag"
FLEET = """\
apiVersion: reconciler.dev/v1alpha1
kind: Fleet
metadata: {name: bench}
spec:
  clusters: clusters/
  applications: [apps/]
  policies: [policies/]
  defaults: {rollout: open}
"""
POLICY = """\
apiVersion: reconciler.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: open}
spec:
  waves:
  - {name: all, size: 100%, maxConcurrent: 100%, maxFailures: 100%, maxUnreachable: 100%}
  progressDeadline: 24h
  onFailure: halt
  mandatory: false
  maxUnreachable: 100%
"""
CLUSTER = """\
apiVersion: reconciler.dev/v1alpha1
kind: Cluster
metadata: {name: NAME, labels: {region: bench}}
spec: {credentials: NAME, staleAfter: 2m}
"""
CONFIGURATION = {
    "taskmanager.numberOfTaskSlots": "4",
    "state.backend.type": "rocksdb",
    "state.backend.incremental": "true",
    "execution.checkpointing.interval": "60s",
    "execution.checkpointing.mode": "EXACTLY_ONCE",
    "execution.checkpointing.max-concurrent-checkpoints": "1",
    "restart-strategy.type": "exponential-delay",
    "restart-strategy.exponential-delay.max-backoff": "2min",
    "high-availability.type": "kubernetes",
    "metrics.reporters": "prom",
    "metrics.reporter.prom.factory.class": "org.apache.flink.metrics.prometheus.PrometheusReporterFactory",
}


def name_of(number: int) -> str:
    """The name of application `number`."""
    return f"app-{number:05d}"


def flink_deployment(name: str, tag: int) -> dict[str, Any]:
    """A FlinkDeployment of about 4 KB as YAML."""
    paths = {
        f"{key}.dir": f"s3://checkpoints.example.com/{name}/{key}"
        for key in ("state.checkpoints", "state.savepoints", "high-availability.storageDir")
    }
    user = {f"user.{name}.topic-{number:02d}": f"{name}-events-{number:02d}.v1" for number in range(40)}
    resource = {"cpu": 1, "memory": "2048m"}
    return {
        "apiVersion": "flink.apache.org/v1beta1",
        "kind": "FlinkDeployment",
        "metadata": {
            "name": name,
            "labels": {"team": "bench", "flink.apache.org/canary": "true"},
            "annotations": {TAG: str(tag)},
        },
        "spec": {
            "image": f"registry.example.com/{name}:1.{tag}",
            "flinkVersion": "v1_20",
            "serviceAccount": name,
            "flinkConfiguration": {**CONFIGURATION, **paths, **user},
            "jobManager": {"replicas": 1, "resource": resource},
            "taskManager": {"replicas": 2, "resource": resource},
            "job": {
                "jarURI": f"local:///opt/flink/usrlib/{name}.jar",
                "entryClass": "com.example.streaming.Main",
                "args": ["--topic", f"{name}-in", "--group", name],
                "parallelism": 8,
                "state": "running",
                "upgradeMode": "savepoint",
            },
        },
    }


def objects_of(number: int, tag: int, full: bool) -> list[dict[str, Any]]:
    """The objects of an application, without namespace."""
    name = name_of(number)
    metadata = {"name": name, "labels": {"team": "bench"}, "annotations": {TAG: str(tag)}}
    data = {"topic": f"{name}-in", "group": name, "level": "info", "tag": str(tag)}
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
    if not full:
        return [settings]
    ports = [{"name": "metrics", "port": 9249, "protocol": "TCP"}]
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        settings,
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": {"app": name}, "ports": ports},
        },
        flink_deployment(name, tag),
    ]


class BenchFleet:
    """A repository and what it declares. `silent` clusters get as many applications each as the others, beyond
    `applications`: `out_of_reach` of them together. A directory holds `team` applications."""

    def __init__(
        self,
        path: Path,
        applications: int,
        clusters: Sequence[str],
        silent: Sequence[str] = (),
        full_max: int = FULL_MAX,
        team: int = TEAM,
    ) -> None:
        self.repository = GitRepository(path)
        self.applications = applications
        self.out_of_reach = len(silent) * max(1, applications // len(clusters))
        self.clusters = list(clusters)
        self.silent = list(silent)
        #: How often each application was changed; those that are not in Git yet are missing.
        self.tags: dict[int, int] = {}
        self.full_max = full_max
        self.team = team
        files = {"fleet.yaml": FLEET, "policies/open.yaml": POLICY}
        for name in sorted({*clusters, *silent}):
            files[f"clusters/{name}.yaml"] = CLUSTER.replace("NAME", name)
        self._write(files)

    @property
    def url(self) -> str:
        """The repository's address."""
        return self.repository.url

    def cluster_of(self, number: int) -> str:
        """The one cluster of application `number`."""
        if number >= self.applications:
            return self.silent[number % len(self.silent)]
        return self.clusters[number % len(self.clusters)]

    @staticmethod
    def name_of(number: int) -> str:
        """The name of application `number`."""
        return name_of(number)

    def is_full(self, number: int) -> bool:
        """True if it has all four objects."""
        return number < self.full_max

    def objects(self, number: int) -> list[dict[str, Any]]:
        """What application `number` has as last committed, without namespace."""
        return objects_of(number, self.tags[number], self.is_full(number))

    def object_count(self, numbers: Sequence[int]) -> int:
        """How many objects `numbers` have together."""
        return sum(FULL_OBJECTS if self.is_full(number) else 1 for number in numbers)

    def commit(self, tags: Mapping[int, int]) -> float:
        """Commit that these applications have these tags now; the moment at which the ref had moved, in wall-clock
        seconds."""
        self.tags.update(tags)
        self._write({self._path(number): self._document(number) for number in tags})
        return time.time()

    def _path(self, number: int) -> str:
        return f"apps/team-{number // self.team:03d}/{name_of(number)}.yaml"

    def _document(self, number: int) -> str:
        cluster = self.cluster_of(number)
        components = [{"name": "objects", "type": "manifests", "properties": {"objects": self.objects(number)}}]
        topology = {"type": "topology", "properties": {"clusters": [cluster], "namespace": cluster}}
        document = {
            "apiVersion": "core.oam.dev/v1beta1",
            "kind": "Application",
            "metadata": {"name": name_of(number), "labels": {"team": "bench"}},
            "spec": {"components": components, "policies": [topology]},
        }
        return yaml.dump(document, Dumper=_PlainDumper, sort_keys=False)

    def _write(self, files: Mapping[str, str]) -> None:
        """One commit on top of the last one, by one process whatever its size."""
        head = self.repository.git("for-each-ref", "--format=%(objectname)", "refs/heads/main")
        when = int(time.time())
        stream = [f"commit refs/heads/main\ncommitter Ada <ada@example.com> {when} +0000\ndata 6\nchange\n".encode()]
        stream += [f"from {head}\n".encode()] if head else []
        for path, text in files.items():
            content = text.encode()
            stream.append(b"M 100644 inline %s\ndata %d\n%s\n" % (path.encode(), len(content), content))
        self.repository.git("fast-import", "--quiet", stdin=b"".join(stream))


class _PlainDumper(yaml.CSafeDumper):
    """Without anchors: people write none."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True
