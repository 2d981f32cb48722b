"""What `reconciler init` writes: the smallest fleet that validates, with comments that say what to change."""

from __future__ import annotations

SCAFFOLD: dict[str, str] = {
    "fleet.yaml": """\
# What this repository declares. Paths are relative to this file.
apiVersion: reconciler.dev/v1alpha1
kind: Fleet
metadata: {name: my-fleet}
spec:
  clusters: clusters/
  applications: [apps/]
  policies: [policies/]
  defaults:
    rollout: standard
    namespace: flink
""",
    "clusters/dev-1.yaml": """\
# `credentials` names an entry of `clusters` in the daemon's settings; no secret is ever in Git.
apiVersion: reconciler.dev/v1alpha1
kind: Cluster
metadata:
  name: dev-1
  labels: {env: dev, region: local, ring: canary}
spec:
  credentials: dev-1
""",
    "apps/hello/app.yaml": """\
apiVersion: core.oam.dev/v1beta1
kind: Application
metadata: {name: hello}
spec:
  components:
  - name: hello
    type: flink-application
    properties:
      image: flink:1.20
      flinkVersion: v1_20
      job:
        jarURI: local:///opt/flink/examples/streaming/StateMachineExample.jar
        parallelism: 1
    traits:
    - type: upgrade-strategy
      # Nothing to lose yet. With the trait `checkpointing` beside it, use last-state or savepoint.
      properties: {mode: stateless}
    - type: resources
      properties:
        jobManager: {cpu: 0.5, memory: 1024m}
        taskManager: {cpu: 0.5, memory: 1024m, slots: 1}
  policies:
  - type: topology
    properties: {clusterLabelSelector: {env: dev}, createNamespace: true}
""",
    "policies/rollout.yaml": """\
# Canary first, then everything else. `reconciler waves --policy policies/rollout.yaml --clusters clusters` shows it.
apiVersion: reconciler.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: standard}
spec:
  waves:
  - {name: canary, select: {clusters: {ring: canary}}, bake: 30m, maxConcurrent: 1, maxFailures: 0}
  - {name: rest, size: 100%, bake: 5m, maxConcurrent: 20%, maxFailures: 0}
  progressDeadline: 15m
  onFailure: rollback
""",
}
