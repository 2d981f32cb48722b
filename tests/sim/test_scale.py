"""The cost follows the change: with a thousand applications on two clusters, a commit that touches one of them reads,
compiles and decides that one, and a poll that finds nothing new does nothing at all.

The fleet is found at rest: what a thousand first rollouts would have left in the store and on the clusters is put there
directly, so that the test is about the change alone.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace

from reconciler.core.fleet import compile_fleet, wanted
from reconciler.core.fleet_model import EMPTY_CACHE, FleetSettings, FleetSnapshot
from reconciler.core.model import Assignment, InventoryItem, InventoryPhase, ObjectKey, RolloutState, Target
from reconciler.core.ownership import owner_hash, stamp
from reconciler.resources import catalogue
from reconciler.shell.daemon import DaemonSettings
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.ports import Tx
from reconciler.shell.store.opening import open_store
from reconciler.sim.checkers import Checkers
from reconciler.sim.git import SimSource
from reconciler.sim.loop import run
from reconciler.sim.scenarios import FLEET_FILE, QUICK, cluster_file, policy_file
from reconciler.sim.world import SOURCE, World, play
from tests.sim.stories import POLL_S, Stage, full, path_of

APPLICATIONS = 1000
CLUSTERS = ("c0", "c1")
APPLICATION = """\
apiVersion: core.oam.dev/v1beta1
kind: Application
metadata: {name: NAME}
spec:
  components:
  - name: config
    type: manifests
    properties: {objects: [{apiVersion: v1, kind: ConfigMap, metadata: {name: NAME}, data: {value: "VALUE"}}]}
  policies:
  - {type: topology, properties: {clusterLabelSelector: {env: prod}, namespace: default}}
"""


def application(name: str, value: str) -> str:
    """An application of one ConfigMap."""
    return APPLICATION.replace("NAME", name).replace("VALUE", value)


def fleet_files() -> dict[str, str]:
    """A thousand applications on two clusters."""
    files = {"fleet.yaml": FLEET_FILE, "policies/quick.yaml": policy_file()}
    for name in CLUSTERS:
        files[f"clusters/{name}.yaml"] = cluster_file(name, "eu", "canary" if name == "c0" else "rest")
    for number in range(APPLICATIONS):
        files[path_of(f"app{number}")] = application(f"app{number}", "1")
    return files


async def compiled(source: SimSource, sha: str) -> FleetSnapshot:
    """The fleet at commit `sha`."""
    _, listing = await source.listing(sha)
    files = {path: (entry.mode, entry.blob) for path, entry in listing.items()}
    contents: dict[str, bytes] = {}
    while blobs := wanted(files, contents, EMPTY_CACHE):
        contents.update(await source.read(blobs))
    return compile_fleet(files, contents, EMPTY_CACHE, FleetSettings(catalogue())).snapshot


async def at_rest(world: World, sha: str) -> None:
    """Put everything where it would be if the first rollouts of `sha` had succeeded."""
    source = SimSource(world.repository)
    commit, _ = await source.listing(sha)
    snapshot = await compiled(source, sha)
    store = open_store(":memory:", new_id=lambda: "scale")
    installation = store.read_now("installation", lambda tx: tx.installation())
    items: list[InventoryItem] = []
    for name in CLUSTERS:
        cluster = KubeCluster(name, world.clusters[name].server.transport(), now_s=world.time)
        for found in snapshot.applications.values():
            release = found.releases[found.targets[name]]
            owner = owner_hash(installation, SOURCE, found.name)
            for manifest in release.objects:
                live = await cluster.apply(stamp(manifest, owner, found.name), uid=None, force=False, dry_run=False)
                uid = str(live["metadata"]["uid"])
                target = Target(found.name, name)
                items.append(InventoryItem(target, ObjectKey.of(manifest), "v1", InventoryPhase.OWNED, uid))

    def fill(tx: Tx) -> None:
        tx.put_revision(SOURCE, commit, 0.0)
        for found in snapshot.applications.values():
            for release in found.releases.values():
                tx.put_release(release)
            for cluster, digest in found.targets.items():
                tx.put_assignment(Assignment(Target(found.name, cluster), digest, SOURCE, sha, digest))
        tx.put_inventory(items)

    store.transact_now("fill", fill)
    world.database = store.serialize()
    store.close_now()


def costs() -> dict[str, Counter[str]]:
    """What each phase of one story cost: commits to the store by their point, metrics, requests to clusters."""
    logging.getLogger("reconciler").setLevel(logging.CRITICAL + 1)
    found: dict[str, Counter[str]] = {}
    # The periodic look at everything, for what a lost wake-up would have said, is not what is measured.
    world = World(seed=1, timings=QUICK, settings=replace(DaemonSettings(), resync_interval_s=86_400.0))

    def writes() -> int:
        return sum(len(cluster.server.log) for cluster in world.clusters.values())

    async def story(world: World) -> None:
        for name in CLUSTERS:
            world.add_cluster(name)
        sha = world.repository.commit(fleet_files(), "first")
        await at_rest(world, sha)
        points: Counter[str] = Counter()
        world.after_commit.append(lambda _world, point: points.update([point]))
        before = Counter(writes=writes())

        def phase(name: str) -> None:
            nonlocal before
            assert world.daemon is not None
            metrics = world.daemon.ports.metrics
            now = Counter(points)
            for metric in ("blobs_read", "documents_parsed", "applications_compiled"):
                now[metric] = int(metrics.value(metric))
            now["decisions"] = int(metrics.value("decisions", unit="source"))
            now["polls"] = int(metrics.value("polls", source=SOURCE, result="unchanged"))
            now["requests"] = sum(sum(cluster.server.requests.values()) for cluster in world.clusters.values())
            now["writes"] = writes()
            found[name] = now - before
            before = now

        await world.boot()
        await world.sleep(5)
        phase("boot")
        await world.sleep(6 * POLL_S)
        phase("quiet")
        stage = Stage(world, Checkers(world))
        stage.commit({path_of("app7"): application("app7", "2")}, "one application")
        await stage.settle()
        await world.sleep(POLL_S)
        assert stage.last("app7").state is RolloutState.SUCCEEDED
        assert stage.source().last_baked == world.repository.refs["main"]
        phase("change")
        stage.commit({path_of("app8"): "kind: [\n"}, "one application breaks")
        await stage.looked()
        phase("break")
        stage.commit({path_of("app8"): application("app8", "1")}, "and is as it was")
        await stage.looked()
        phase("mend")
        for name in CLUSTERS:
            live = world.clusters[name].read("", "ConfigMap", "default", "app7")
            assert live is not None
            assert live["data"] == {"value": "2"}

    run(play(world, story))
    return found


def of_source(cost: Counter[str]) -> dict[str, int]:
    """The commits of the source's unit."""
    return {point: count for point, count in cost.items() if point.startswith(("source:", "revision:", "progress:"))}


def test_the_cost_of_a_commit_follows_the_change() -> None:
    cost = costs()
    boot_looks_at_everything_once_and_writes_nothing(cost["boot"])
    a_poll_that_finds_nothing_new_costs_nothing(cost["quiet"])
    a_commit_that_touches_one_application_costs_one(cost["change"])
    a_commit_that_breaks_one_application_is_no_matter_for_the_others(cost["break"])
    a_commit_that_breaks_one_application_is_no_matter_for_the_others(cost["mend"])


def boot_looks_at_everything_once_and_writes_nothing(cost: Counter[str]) -> None:
    assert cost["applications_compiled"] == APPLICATIONS
    assert cost["decisions"] >= APPLICATIONS
    assert cost["writes"] == 0


def a_poll_that_finds_nothing_new_costs_nothing(cost: Counter[str]) -> None:
    assert cost["polls"] >= 4
    assert of_source(cost) == {}
    assert cost["decisions"] == cost["blobs_read"] == cost["writes"] == 0
    assert cost["requests"] <= 15 * len(CLUSTERS)  # each cluster is asked now and then if it is still there


def a_commit_that_touches_one_application_costs_one(cost: Counter[str]) -> None:
    assert cost["blobs_read"] == cost["documents_parsed"] == cost["applications_compiled"] == 1
    assert cost["writes"] == len(CLUSTERS)
    points = of_source(cost)
    assert set(points) == {f"source:{SOURCE}/{full('app7')}", f"revision:{SOURCE}", f"progress:{SOURCE}"}
    assert points[f"revision:{SOURCE}"] == 1
    assert sum(points.values()) <= 40, points


def a_commit_that_breaks_one_application_is_no_matter_for_the_others(cost: Counter[str]) -> None:
    assert cost["blobs_read"] == 1
    assert cost["applications_compiled"] == 0
    assert cost["writes"] == 0
    points = of_source(cost)
    assert set(points) <= {f"source:{SOURCE}/{full('app8')}", f"revision:{SOURCE}", f"progress:{SOURCE}"}
    assert sum(points.values()) <= 5, points
