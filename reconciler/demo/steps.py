"""The four steps: what happens in each, when it is over, and how its outcome is verified on the clusters themselves.

A step plays its part (a commit, a cut cable, a hand on a cluster), waits until the fleet has come to rest, then looks
at the clusters' objects and at what was written there. It returns what it ended as; StepFailedError says what else it
ended as, and why.

    STEPS["change"].wanted                       # "Succeeded"
    ended = await STEPS["change"].play(scene)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import pairwise

from reconciler.core.model import (
    ObjectKey,
    Release,
    Rollout,
    RolloutKind,
    RolloutState,
    RolloutTarget,
    Target,
    TargetState,
)
from reconciler.demo import verify
from reconciler.demo.cluster import JOB, JOB_API_VERSION
from reconciler.demo.fleet import APPLICATION
from reconciler.demo.outcome import alerts_since, rollouts_since, touched_since
from reconciler.demo.scene import Scene, StepFailedError, stopped
from reconciler.demo.stage import AUTHOR, SOURCE
from reconciler.shell.ports import Tx

SUCCEEDED, ROLLED_BACK, REPAIRED = "Succeeded", "RolledBack", "Repaired"
BY_HAND_IMAGE = "registry.example.com/commerce/orders:debug-session"
#: What another team keeps on an object of ours.
OTHERS_MANAGER = "cost-exporter"
OTHERS_LABEL = ("finance.example.com/cost-center", "4711")
#: How long the cluster stays away after everybody else is done.
AWAY_AFTERWARDS_S = 300.0


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `lesson` is what a newcomer reads while it plays; `pace` is how much policy time a second of a
    terminal's view shows at most, so that what is over in a moment can be seen."""

    name: str
    title: str
    lesson: str
    wanted: str
    pace: float
    play: Callable[[Scene], Awaitable[str]]


# ---- the steps ---------------------------------------------------------------------------------------------------


async def initial_sync(scene: Scene) -> str:
    """The whole fleet comes up from nothing."""
    await scene.until(scene.at_rest)
    await _all_rolled_out(scene)
    await _everything_runs(scene)
    return SUCCEEDED


async def change(scene: Scene) -> str:
    """A new version reaches all clusters of one application in waves; one cluster is away when its turn comes."""
    away = scene.fleet.last_of_ring("rest").name
    await scene.stage.clusters[away].cut()
    scene.say(f"the line to cluster {away} is cut")
    await _push(scene, scene.fleet.with_change(), f"{APPLICATION}: next version, more parallelism")
    await scene.until(lambda: _all_but_the_unreachable_done(scene))
    await scene.wait(AWAY_AFTERWARDS_S)
    await scene.stage.clusters[away].mend()
    scene.say(f"the line to cluster {away} is back")
    await scene.until(scene.at_rest)
    played = await _all_rolled_out(scene)
    touched = await touched_since(scene.stage, scene.mark)
    for rollout, rows in played:
        _expect(verify.in_order(rollout, rows, touched))
    goals = set(await _goals(scene))
    changed = {target for target in goals if target.application == scene.application}
    if set(touched) != changed:
        raise StepFailedError("Failed", f"written were {_named(set(touched))}, not exactly {_named(changed)}")
    await _everything_runs(scene)
    return SUCCEEDED


async def bad_change(scene: Scene) -> str:
    """A version whose job falls over after it was RUNNING: stopped in its first wave, and taken back."""
    before = await _assigned(scene)
    await _push(scene, scene.fleet.with_bad_image(), f"{APPLICATION}: faster parser")
    await scene.until(scene.at_rest)
    played = await rollouts_since(scene.stage, scene.mark)
    if len(played) != 1:
        raise StepFailedError("Failed", f"{len(played)} rollouts were opened, not one")
    rollout, rows = played[0]
    if rollout.state is not RolloutState.ROLLED_BACK:
        raise stopped(rollout)
    touched = set(await touched_since(scene.stage, scene.mark))
    first_wave = {row.target for row in rows if row.wave == min(row.wave for row in rows)}
    if not touched or not touched <= first_wave:
        raise StepFailedError("Failed", f"written were {_named(touched)}, not only the first wave")
    if not any(alert.rollout == rollout.id for alert in await alerts_since(scene.stage, scene.mark)):
        raise StepFailedError("Failed", f"no alert is recorded for rollout {rollout.id}")
    image = _image_of(await _releases(scene, {row.to_digest for row in rows}))
    fell = [target for target in sorted(touched) if verify.crash_looped(scene.stage, target.cluster, image) is None]
    if not fell:
        raise StepFailedError("Failed", "no job fell over under STABLE: the bad change was not bad")
    if await _assigned(scene) != before:
        raise StepFailedError("Failed", "not every target is assigned what it had before")
    await _everything_runs(scene)
    scene.say(f"the job in {fell[0].cluster} fell over {_falls(scene, fell[0], image)} times; the operator said STABLE")
    scene.say(f"{_clusters(touched)}: back at the release that baked, and running; this one is in quarantine")
    return ROLLED_BACK


async def drift(scene: Scene) -> str:
    """Somebody edits one job and deletes another by hand, while another team keeps a label of its own on the first."""
    stage = scene.stage
    edited, deleted = scene.fleet.first_of_ring("early").name, scene.fleet.first_of_ring("rest").name
    one, other = stage.clusters[edited], stage.clusters[deleted]
    label, value = OTHERS_LABEL
    await one.edit(JOB_API_VERSION, JOB, {"metadata": {"labels": {label: value}}}, OTHERS_MANAGER)
    scene.say(f"another team's {OTHERS_MANAGER} puts its label on the job in {edited}: no business of ours")
    await one.edit(JOB_API_VERSION, JOB, {"spec": {"image": BY_HAND_IMAGE}})
    scene.say(f"somebody runs `kubectl edit` on the job in {edited}: image {BY_HAND_IMAGE.rpartition(':')[2]}")
    doomed = await other.read(JOB_API_VERSION, JOB)
    await other.delete(JOB_API_VERSION, JOB)
    scene.say(f"somebody runs `kubectl delete` on the job in {deleted}")
    await scene.until(scene.at_rest)
    if await rollouts_since(stage, scene.mark):
        raise StepFailedError("Failed", "a rollout was opened, although Git asked for nothing new")
    wanted = {Target(scene.application, edited), Target(scene.application, deleted)}
    touched = set(await touched_since(stage, scene.mark))
    if touched != wanted:
        raise StepFailedError("Failed", f"written were {_named(touched)}, not exactly {_named(wanted)}")
    repaired, again = await one.read(JOB_API_VERSION, JOB), await other.read(JOB_API_VERSION, JOB)
    if repaired is None or repaired["metadata"].get("labels", {}).get(label) != value:
        raise StepFailedError("Failed", f"the label {label} of {OTHERS_MANAGER} on {edited} did not survive")
    if doomed is None or again is None or again["metadata"]["uid"] == doomed["metadata"]["uid"]:
        raise StepFailedError("Failed", f"the deleted job in {deleted} was not made anew")
    await _everything_runs(scene)
    scene.say(f"{edited}: the image is as it was; the label {label} of {OTHERS_MANAGER} is still there")
    scene.say(f"{deleted}: the job was made anew, and runs")
    return REPAIRED


STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        Step(
            "initial-sync",
            "The fleet comes up from nothing",
            "Git declares applications and clusters. Each application is compiled for its clusters and brought up in "
            "waves: a few canaries first, watched for 30 minutes, then more.",
            SUCCEEDED,
            600.0,
            initial_sync,
        ),
        Step(
            "change",
            "A commit changes one application everywhere",
            "The canaries go first. The next wave opens only when the one before ran the new version, healthy, for its "
            "whole bake time. A cluster that is away holds nobody up and catches up later.",
            SUCCEEDED,
            400.0,
            change,
        ),
        Step(
            "bad-change",
            "A commit that breaks the job",
            "The job starts, runs, and then falls over again and again; Flink's operator calls it STABLE all along. "
            "The first wave notices: the rollout stops, an alert goes out, and the canaries go back.",
            ROLLED_BACK,
            25.0,
            bad_change,
        ),
        Step(
            "drift",
            "Hands on the clusters",
            "Live differs from what was rolled out. Git's tip is still the bad commit, so repair goes back to the "
            "release that baked; what belongs to others on the same object stays.",
            REPAIRED,
            6.0,
            drift,
        ),
    )
}


async def _push(scene: Scene, files: dict[str, bytes], subject: str) -> None:
    """Commit, and tell what the commit changes."""
    changes = "; ".join(scene.fleet.changed_lines(files))
    await scene.commit(files, subject)
    scene.say(f"{AUTHOR} pushes {scene.head[:7]}: {changes}")


# ---- questions ---------------------------------------------------------------------------------------------------


async def _all_but_the_unreachable_done(scene: Scene) -> bool:
    """True if the rollouts of this step have nothing left to do but for clusters that are away, or have stopped."""
    active = await scene.active_rollouts()
    if active is None:
        return False
    played = await rollouts_since(scene.stage, scene.mark)
    done = (TargetState.SUCCEEDED, TargetState.UNREACHABLE)
    return bool(played) and all(
        rollout.state is not RolloutState.ACTIVE or all(row.state in done for row in rows) for rollout, rows in played
    )


async def _all_rolled_out(scene: Scene) -> list[tuple[Rollout, list[RolloutTarget]]]:
    """The rollouts of this step, if all succeeded and everything that Git asks for baked; else StepFailedError."""
    played = await rollouts_since(scene.stage, scene.mark)
    for rollout, _ in played:
        if rollout.state is not RolloutState.SUCCEEDED:
            raise stopped(rollout)
    goals = await _goals(scene)
    baked = await scene.stage.read(lambda tx: {row.target: row.baked for row in tx.assignments(source=SOURCE)})
    left = {target for target, digest in goals.items() if baked.get(target) != digest}
    if left:
        raise StepFailedError("Failed", f"the release has not baked on {_named(left)}")
    return [pair for pair in played if pair[0].kind is RolloutKind.CHANGE]


async def _everything_runs(scene: Scene) -> None:
    """Every target's cluster holds its assigned release, and its jobs run; else StepFailedError."""
    for target, release in sorted((await _assigned(scene)).items()):
        _expect(await verify.runs(scene.stage, target, release))


def _expect(problem: str | None) -> None:
    if problem is not None:
        raise StepFailedError("Failed", problem)


async def _goals(scene: Scene) -> dict[Target, str]:
    """What Git asks for."""
    snapshot = scene.stage.daemon.sources[SOURCE].snapshot
    assert snapshot is not None
    return {
        Target(name, cluster): digest
        for name, application in snapshot.applications.items()
        for cluster, digest in application.targets.items()
    }


async def _assigned(scene: Scene) -> dict[Target, Release]:
    """What each target is to have now."""

    def read(tx: Tx) -> dict[Target, Release]:
        rows = tx.assignments(source=SOURCE)
        releases = {digest: tx.release(digest) for digest in {row.digest for row in rows}}
        return {row.target: release for row in rows if (release := releases[row.digest]) is not None}

    return await scene.stage.read(read)


async def _releases(scene: Scene, digests: set[str]) -> list[Release]:
    def read(tx: Tx) -> list[Release]:
        return [release for digest in sorted(digests) if (release := tx.release(digest)) is not None]

    return await scene.stage.read(read)


def _image_of(releases: list[Release]) -> str:
    """The image of the job in them: one for all variants."""
    images = {
        str(manifest["spec"]["image"])
        for release in releases
        for manifest in release.objects
        if ObjectKey.of(manifest) == JOB
    }
    assert len(images) == 1, f"the releases have the images {sorted(images)}"
    return images.pop()


def _falls(scene: Scene, target: Target, image: str) -> int:
    """How often the job left RUNNING by itself at this image."""
    jobs = [state.job for state in scene.stage.clusters[target.cluster].jobs if state.image == image]
    return sum(pair == ("RUNNING", "RESTARTING") for pair in pairwise(jobs))


def _clusters(targets: set[Target]) -> str:
    return ", ".join(target.cluster for target in sorted(targets))


def _named(targets: set[Target]) -> str:
    return ", ".join(str(target) for target in sorted(targets)) or "nothing"
