"""Stories of clusters whose schemas differ: what one of them cannot take blocks its own target, before any write."""

from __future__ import annotations

import pytest

from reconciler.core.model import IntentState, RolloutState
from reconciler.shell.kube_cluster import SCHEMA_INTERVAL_S
from reconciler.sim.checkers import MANAGER
from reconciler.sim.plan import Fault, FaultKind
from reconciler.sim.scenarios import FLINK, application_file
from reconciler.sim.schema import load_catalog
from reconciler.sim.store import WriteEntry
from tests.sim.stories import Stage, installed, path_of, tell

ONE_WAVE = """\
apiVersion: reconciler.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: quick}
spec:
  waves:
  - {name: all, size: 100%, bake: 10s, maxConcurrent: 100%, maxFailures: 0}
  progressDeadline: 5m
  onFailure: halt
"""
FILES = {"policies/quick.yaml": ONE_WAVE}
OLD = load_catalog().variant(without_fields={"FlinkDeployment": [("spec", "job", "args")]})


def with_arguments(tag: str) -> dict[str, str]:
    """The application, asking for a field that old clusters lack; its ConfigMap comes earlier in the order."""
    text = application_file("app0", tag).replace("parallelism: 2}", "parallelism: 2, args: [fast]}")
    return {path_of("app0"): text}


def sent_to(stage: Stage, cluster: str) -> list[WriteEntry]:
    """All that we sent there to be written, what was refused, too."""
    log = stage.world.clusters[cluster].server.log
    return [entry for entry in log if entry.manager == MANAGER and not entry.dry_run]


def test_an_old_cluster_is_blocked_before_any_write_and_goes_on_once_it_is_upgraded() -> None:
    async def story(stage: Stage) -> None:
        old = stage.world.clusters["c0"]
        old.server.set_catalog(OLD)
        await installed(stage)
        before = len(sent_to(stage, "c0"))
        stage.commit(with_arguments("1.1"))
        await stage.reach(lambda: stage.states("app0") == {"c0": "Blocked", "c1": "Succeeded", "c2": "Succeeded"})
        reason = stage.rows(stage.last("app0"))["c0"].reason
        assert reason is not None
        assert reason.code == "SchemaMismatch"
        assert "FlinkDeployment.flink.apache.org app0/app0: " in reason.message
        assert "spec.job.args is not a field in flink.apache.org/v1beta1" in reason.message
        assert "cluster c0 (Kubernetes v1.36.3+reconciler-simulated)" in reason.message
        # Not even what the cluster could take.
        assert len(sent_to(stage, "c0")) == before
        config = stage.config("app0", "c0")
        assert config is not None
        assert config["data"] == {"tag": "1.0"}
        assert stage.pending() == 0
        # It is looked at again every now and then, and as long as nothing changes there nothing is written.
        await stage.world.sleep(1500)
        assert stage.states("app0")["c0"] == "Blocked"
        assert stage.last("app0").state is RolloutState.ACTIVE
        assert len(sent_to(stage, "c0")) == before
        upgraded = stage.world.time()
        old.server.set_catalog(load_catalog())
        await stage.settle()
        assert stage.world.time() - upgraded < 900
        assert stage.last("app0").state is RolloutState.SUCCEEDED
        live = stage.job("app0", "c0")
        assert live is not None
        assert live["spec"]["job"]["args"] == ["fast"]
        assert stage.job_writes("c0") == 2

    tell(story, files=FILES)


def test_what_blocks_is_read_when_it_blocks_and_not_before() -> None:
    """A schema that changed since it was read holds nothing up, however recently that was."""

    async def story(stage: Stage) -> None:
        for cluster in stage.world.clusters.values():
            cluster.server.set_catalog(OLD)
        await installed(stage)
        for cluster in stage.world.clusters.values():
            cluster.server.set_catalog(load_catalog())
        begun = stage.world.time()
        stage.commit(with_arguments("1.1"))
        await stage.settle()
        assert stage.world.time() - begun < SCHEMA_INTERVAL_S
        assert stage.last("app0").state is RolloutState.SUCCEEDED
        assert set(stage.states("app0").values()) == {"Succeeded"}

    tell(story, files=FILES)


def test_a_kind_that_a_cluster_does_not_serve_blocks_it_before_any_write() -> None:
    async def story(stage: Stage) -> None:
        bare = stage.world.clusters["c1"]
        bare.server.set_catalog(load_catalog().variant(without_kinds=["FlinkDeployment"]))
        await stage.looked()
        await stage.reach(lambda: stage.states("app0") == {"c0": "Succeeded", "c1": "Blocked", "c2": "Succeeded"})
        reason = stage.rows(stage.last("app0"))["c1"].reason
        assert reason is not None
        assert reason.code == "KindMissing"
        assert "does not serve flink.apache.org/v1beta1 FlinkDeployment" in reason.message
        assert sent_to(stage, "c1") == []

    tell(story, files=FILES)


@pytest.mark.parametrize("asked", ["index", "document"])
def test_where_the_schemas_cannot_be_read_the_server_decides(asked: str) -> None:
    async def story(stage: Stage) -> None:
        old = stage.world.clusters["c0"]
        old.server.set_catalog(OLD)
        await installed(stage)
        stage.commit(with_arguments("1.1"))
        await stage.reach(lambda: stage.states("app0") == {"c0": "Blocked", "c1": "Succeeded", "c2": "Succeeded"})
        refused = [entry for entry in sent_to(stage, "c0") if entry.code >= 400 and not entry.dry_run]
        assert [entry.key.kind for entry in refused] == ["FlinkDeployment"]
        states = {
            intent.key.kind: intent.state
            for intent in stage.world.ask(lambda tx: tx.intents(cluster="c0"))
            if intent.digest == stage.rows(stage.last("app0"))["c0"].to_digest
        }
        assert states["FlinkDeployment"] is IntentState.FAILED
        assert states["ConfigMap"] is IntentState.DONE

    tell(story, files=FILES, plan=Unreadable(asked))


class Unreadable:
    """The schemas of c0 cannot be had: requests for all of them, or for those of Flink, are lost."""

    def __init__(self, asked: str) -> None:
        path = "/openapi/v3" if asked == "index" else f"/openapi/v3/apis/{FLINK}/v1beta1"
        self._point = f"c0 GET {path}"

    async def io(self, point: str) -> Fault:
        """The fate of the call at `point`."""
        return Fault(FaultKind.LOST_BEFORE) if point == self._point else Fault()
