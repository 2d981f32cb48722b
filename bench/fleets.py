"""Fleets to measure with: as many applications as asked for, each like a real one, in one repository.

Every application is one document of about 50 lines: a Flink job with three traits and three plain objects beside it,
for the four clusters of its region. Content addresses are hashes of the content, as git's are.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

REGIONS = ("ap-south", "eu-west", "us-east")
FLEET = """\
apiVersion: reconciler.dev/v1alpha1
kind: Fleet
metadata: {name: bench}
spec: {clusters: [clusters/], applications: [apps/], policies: [policies/], defaults: {rollout: standard}}
"""
POLICY = """\
apiVersion: reconciler.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: standard}
spec:
  waves:
  - {name: canary, select: {clusters: {ring: canary}}, bake: 30m, maxConcurrent: 1, maxFailures: 0}
  - {name: rest, size: 100%, bake: 5m, maxConcurrent: 20%, maxFailures: 2%}
"""
CLUSTER = """\
apiVersion: reconciler.dev/v1alpha1
kind: Cluster
metadata: {name: NAME, labels: {env: prod, region: REGION, ring: RING}}
spec: {credentials: NAME, staleAfter: 2m}
"""
APPLICATION = """\
apiVersion: core.oam.dev/v1beta1
kind: Application
metadata:
  name: NAME
  labels: {team: team-TEAM, tier: gold}
spec:
  components:
  - name: NAME
    type: flink-application
    properties:
      image: "registry.example.com/NAME:1.TAG"
      flinkVersion: v2_0
      serviceAccount: NAME
      flinkConfiguration:
        taskmanager.numberOfTaskSlots: "2"
        restart-strategy.type: exponential-delay
        state.backend.type: rocksdb
      job:
        jarURI: local:///opt/flink/usrlib/NAME.jar
        entryClass: com.example.NAME.Main
        args: ["--topic", "NAME-in", "--group", "NAME"]
        parallelism: 4
    traits:
    - type: checkpointing
      properties: {interval: 60s, directory: "s3://checkpoints.example.com/NAME"}
    - type: upgrade-strategy
      properties: {mode: savepoint}
    - type: resources
      properties:
        jobManager: {cpu: 1, memory: 2048m}
        taskManager: {cpu: 2, memory: 4096m}
  - name: objects
    type: manifests
    properties:
      objects:
      - apiVersion: v1
        kind: ServiceAccount
        metadata: {name: NAME}
      - apiVersion: v1
        kind: ConfigMap
        metadata: {name: NAME-settings}
        data: {topic: NAME-in, group: NAME, level: info}
      - apiVersion: v1
        kind: Service
        metadata: {name: NAME-metrics}
        spec:
          selector: {app: NAME}
          ports: [{name: metrics, port: 9249, protocol: TCP}]
  policies:
  - {type: topology, properties: {clusterLabelSelector: {region: REGION}, namespace: NAME}}
"""


@dataclass(frozen=True, slots=True)
class Repository:
    """A commit: its listing as the compiler wants it, and the contents by content address."""

    listing: dict[str, tuple[str, str]]
    contents: dict[str, bytes]


def application(number: int, tag: int = 0) -> str:
    """The document of application `number`."""
    name, region = f"app-{number:05d}", REGIONS[number % len(REGIONS)]
    text = APPLICATION.replace("NAME", name).replace("REGION", region)
    return text.replace("TEAM", str(number % 50)).replace("TAG", str(tag))


def fleet(applications: int, changed: dict[int, int] | None = None) -> Repository:
    """A fleet of `applications` on twelve clusters; `changed` gives some of them another image tag."""
    files = {"fleet.yaml": FLEET, "policies/standard.yaml": POLICY}
    for number in range(12):
        region, ring = REGIONS[number % 3], "canary" if number < 3 else "rest"
        name = f"{region}-{number // 3}"
        content = CLUSTER.replace("NAME", name).replace("REGION", region).replace("RING", ring)
        files[f"clusters/{name}.yaml"] = content
    for number in range(applications):
        files[f"apps/app-{number:05d}/app.yaml"] = application(number, (changed or {}).get(number, 0))
    listing: dict[str, tuple[str, str]] = {}
    contents: dict[str, bytes] = {}
    for path in sorted(files):
        data = files[path].encode()
        blob = hashlib.sha1(data).hexdigest()  # noqa: S324 - a content address, as git's
        listing[path], contents[blob] = ("100644", blob), data
    return Repository(listing, contents)
