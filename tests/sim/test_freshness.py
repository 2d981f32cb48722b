"""What counts as seen: every kind a target has objects of, whether it has a watch or not."""

from __future__ import annotations

from reconciler.core.model import Health, Reason, RolloutState, Sync, Target, TargetState, TargetVerdict
from reconciler.shell.board import Board, ClusterEntry
from reconciler.shell.daemon import DaemonSettings
from reconciler.shell.live import GroupKind
from reconciler.sim.plan import Fault, FaultKind
from tests.sim.stories import Stage, full, path_of, tell

LONG_BAKE = """\
apiVersion: reconciler.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: quick}
spec:
  waves:
  - {name: all, size: 100%, bake: 240s, maxConcurrent: 1, maxFailures: 0}
  progressDeadline: 15m
  onFailure: halt
"""
APPLICATION = """\
apiVersion: core.oam.dev/v1beta1
kind: Application
metadata: {{name: {name}}}
spec:
  components:
  - name: {name}
    type: manifests
    properties:
      objects:
{objects}
  policies:
  - {{type: topology, properties: {{clusterLabelSelector: {{env: prod}}, namespace: {name}, createNamespace: true}}}}
"""
STATEFUL_SET = """\
      - apiVersion: apps/v1
        kind: StatefulSet
        metadata: {{name: db}}
        spec:
          replicas: 1
          serviceName: db
          selector: {{matchLabels: {{a: b}}}}
          template: {{metadata: {{labels: {{a: b}}}}, spec: {{containers: [{{name: db, image: "db:{tag}"}}]}}}}"""
#: These three kinds take all the watches a cluster may have.
WATCHED = """\
      - apiVersion: flink.apache.org/v1beta1
        kind: FlinkDeployment
        metadata: {name: session}
        spec:
          image: "i:1"
          flinkVersion: v1_20
          serviceAccount: flink
          jobManager: {resource: {cpu: 1, memory: 1g}}
          taskManager: {resource: {cpu: 1, memory: 1g}}
      - apiVersion: flink.apache.org/v1beta1
        kind: FlinkSessionJob
        metadata: {name: job}
        spec: {deploymentName: session, job: {jarURI: "local:///a.jar", parallelism: 1, upgradeMode: stateless}}
      - apiVersion: apps/v1
        kind: Deployment
        metadata: {name: web}
        spec:
          replicas: 1
          selector: {matchLabels: {a: c}}
          template: {metadata: {labels: {a: c}}, spec: {containers: [{name: web, image: "web:1"}]}}"""


def _database(tag: str) -> str:
    return APPLICATION.format(name="db", objects=STATEFUL_SET.format(tag=tag))


FILES = {
    "policies/quick.yaml": LONG_BAKE,
    path_of("app0"): None,
    path_of("db"): _database("1"),
    path_of("other"): APPLICATION.format(name="other", objects=WATCHED),
}


class Lists:
    """Counts lists of StatefulSets, and fails them from the moment at which `failing` is set."""

    def __init__(self) -> None:
        self.count = 0
        self.failing = False

    async def io(self, point: str) -> Fault:
        """The fate of the call at `point`."""
        if not point.endswith(" GET /apis/apps/v1/statefulsets"):
            return Fault()
        self.count += 1
        return Fault(FaultKind.SERVER_ERROR) if self.failing else Fault()


async def _baking(stage: Stage) -> None:
    """Install everything, then bring the next database to its bake."""
    await stage.settle(7200)
    assert stage.last("db").state is RolloutState.SUCCEEDED
    watched = [kind.kind for kind in stage.daemon.lanes["c0"].observer.watched()]
    assert watched == ["FlinkDeployment", "FlinkSessionJob", "Deployment"]
    stage.commit({path_of("db"): _database("2")}, "db 2")
    await stage.reach(lambda: stage.states("db").get("c0") == TargetState.BAKING)


def test_an_object_without_a_watch_that_vanishes_while_it_bakes_is_missed_at_the_next_check() -> None:
    async def story(stage: Stage) -> None:
        await _baking(stage)
        stage.world.clusters["c0"].delete("apps", "StatefulSet", "db", "db")
        deleted_at = stage.world.time()
        await stage.reach(lambda: stage.states("db")["c0"] != TargetState.BAKING, 900)
        assert stage.world.time() - deleted_at <= 2 * DaemonSettings().check_interval_s
        assert stage.states("db")["c0"] == TargetState.PROGRESSING
        assert stage.rows(stage.last("db"))["c0"].bake_s == 0.0

    tell(story, clusters=1, files=FILES, settings=DaemonSettings())


def test_a_kind_that_cannot_be_listed_lets_no_bake_accrue_whatever_the_others_say() -> None:
    lists = Lists()

    async def story(stage: Stage) -> None:
        await _baking(stage)
        await stage.world.sleep(30)
        lists.failing = True
        await stage.world.sleep(10)
        before = stage.rows(stage.last("db"))["c0"].bake_s
        assert before > 0
        # Its namespace is read by lists, too, and the cluster answers everything else: that proves nothing of this.
        await stage.world.sleep(120)
        row = stage.rows(stage.last("db"))["c0"]
        assert (row.state, row.bake_s) == (TargetState.BAKING, before)
        lists.failing = False
        await stage.settle(7200)
        assert stage.states("db")["c0"] == TargetState.SUCCEEDED

    tell(story, clusters=1, files=FILES, settings=DaemonSettings(), plan=lists)


def test_a_cluster_nobody_waits_for_is_asked_as_seldom_as_before() -> None:
    lists = Lists()

    async def story(stage: Stage) -> None:
        await stage.settle(7200)
        await stage.world.sleep(300)  # the lane notices by itself that nobody waits any more
        lists.count = 0
        await stage.world.sleep(3000)
        assert lists.count <= 3000 / DaemonSettings().resync_interval_s + 1
        stage.commit({path_of("db"): _database("2")}, "db 2")
        await stage.reach(lambda: stage.states("db").get("c0") == TargetState.BAKING)
        lists.count = 0
        await stage.world.sleep(100)
        assert 8 <= lists.count <= 12

    tell(story, clusters=1, files=FILES, settings=DaemonSettings(), plan=lists)


def test_a_lane_is_as_fresh_as_the_oldest_of_the_target_s_kinds() -> None:
    async def story(stage: Stage) -> None:
        await stage.settle(7200)
        await stage.world.sleep(200)
        lane = stage.daemon.lanes["c0"]
        target = Target(full("db"), "c0")
        kinds = [GroupKind("", "Namespace"), GroupKind("apps", "StatefulSet")]
        times = [lane.observer.observed_at(kind) or 0.0 for kind in kinds]
        assert 0.0 < min(times) < (lane.observer.heard_at or 0.0)
        assert lane.freshness(target) == min(times)
        lane.judging.mark_target(target)
        assert lane.freshness(target) is None
        assert lane.freshness(Target(full("nobody"), "c0")) is None

    tell(story, clusters=1, files=FILES, settings=DaemonSettings())


def test_the_board_says_the_later_of_what_was_judged_and_what_was_proven_since() -> None:
    target = Target("fleet/orders", "c0")
    board = Board()
    fresh: list[float | None] = [12.0]
    board.clusters["c0"] = ClusterEntry(lambda: None, lambda _: fresh[0])  # type: ignore[arg-type, return-value]  # not asked
    board.verdicts[target] = TargetVerdict(
        target, "d", 10.0, Sync.IN_SYNC, Health.HEALTHY, Reason("Running", "it runs"), applied=True
    )
    found = []
    for at in (12.0, 9.0, None):
        fresh[0] = at
        verdict = board.verdict(target)
        found.append(verdict.observed_at if verdict is not None else None)
    assert found == [12.0, 10.0, 10.0]


def test_the_board_knows_which_targets_of_a_cluster_are_waited_for() -> None:
    board = Board()
    one, two, far = Target("f/a", "c0"), Target("f/b", "c0"), Target("f/a", "c1")
    board.watch("rollout:1", [two, far])
    board.watch("rollout:2", [one, two])
    assert board.watched_on("c0") == [one, two]
    board.unwatch("rollout:2")
    assert (board.watched_on("c0"), board.watchers_of_cluster("c0")) == ([two], ("rollout:1",))
    board.unwatch("rollout:1")
    assert (board.watched_on("c0"), board.watchers_of_cluster("c0")) == ([], ())
