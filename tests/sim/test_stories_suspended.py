"""Suspended is a success only where Git asks for it: what a person suspended by hand proves nothing of a release."""

from __future__ import annotations

import pytest

from reconciler.core.model import RolloutState, TargetState
from tests.sim.stories import Stage, full, installed, path_of, tell

WEB = """\
apiVersion: core.oam.dev/v1beta1
kind: Application
metadata: {{name: app0}}
spec:
  components:
  - name: app0
    type: manifests
    properties:
      objects:
      - apiVersion: apps/v1
        kind: Deployment
        metadata: {{name: app0}}
        spec:
          replicas: 2
          selector: {{matchLabels: {{a: c}}}}
          template: {{metadata: {{labels: {{a: c}}}}, spec: {{containers: [{{name: web, image: "web:{tag}"}}]}}}}
  policies:
  - {{type: topology, properties: {{clusterLabelSelector: {{env: prod}}, namespace: app0, createNamespace: true}}}}
"""
JOB = """\
apiVersion: core.oam.dev/v1beta1
kind: Application
metadata: {{name: app0}}
spec:
  components:
  - name: app0
    type: manifests
    properties:
      objects:
      - apiVersion: flink.apache.org/v1beta1
        kind: FlinkDeployment
        metadata: {{name: app0}}
        spec:
          image: "job:{tag}"
          flinkVersion: v1_20
          serviceAccount: flink
          jobManager: {{resource: {{cpu: 1, memory: 1g}}}}
          taskManager: {{resource: {{cpu: 1, memory: 1g}}}}
          job: {{jarURI: "local:///a.jar", parallelism: 1, upgradeMode: stateless}}
  policies:
  - {{type: topology, properties: {{clusterLabelSelector: {{env: prod}}, namespace: app0, createNamespace: true}}}}
"""


@pytest.mark.parametrize(
    ("document", "kind", "suspended", "running"),
    [
        (WEB, ("apps", "Deployment"), {"paused": True}, {"paused": None}),
        (JOB, ("flink.apache.org", "FlinkDeployment"), {"job": {"state": "suspended"}}, {"job": {"state": "running"}}),
    ],
)
def test_what_was_suspended_by_hand_does_not_bake(
    document: str, kind: tuple[str, str], suspended: dict[str, object], running: dict[str, object]
) -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        cluster = stage.world.clusters["c0"]
        cluster.edit(*kind, "app0", "app0", {"spec": suspended})
        await stage.world.sleep(60)
        assert stage.heals("c0") == 0  # a field that is not declared is no drift
        stage.commit({path_of("app0"): document.format(tag="2")}, "two")
        await stage.reach(lambda: stage.states("app0").get("c0") == TargetState.PROGRESSING)
        await stage.world.sleep(120)
        row = stage.rows(stage.last("app0"))["c0"]
        assert row.state is TargetState.PROGRESSING
        assert row.reason is not None
        assert row.reason.code == "SuspendedByHand"
        assert stage.states("app0")["c1"] == TargetState.WAITING
        cluster.edit(*kind, "app0", "app0", {"spec": running})
        await stage.settle()
        assert stage.last("app0").state is RolloutState.SUCCEEDED, stage.why(full("app0"))

    tell(story, clusters=2, files={path_of("app0"): document.format(tag="1")})
