"""What differs on the clusters, and how healthy it is: per object, for people.

The objects are those that the lanes have in memory: asking costs the clusters nothing. Equality is the lane's own
verdict (exact, by ownership, by the server where need be); the paths are worded on the client.

    await diff(daemon, "orders", "eu-west-1a")      # {"objects": [...]}: the shape of `diff -o json`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.core.explain_diff import MASK, changes, is_secret
from reconciler.core.model import Manifest, ObjectKey, Release, Sync, Target
from reconciler.core.ownership import owner_hash, stamp
from reconciler.core.plan_diff import NO_EFFECT, ObjectDiff, manifest_effect
from reconciler.core.predict import predicted
from reconciler.shell.asking import AskError, find_application, find_cluster
from reconciler.shell.daemon import Daemon
from reconciler.shell.live import NotSeen
from reconciler.shell.looks import Look, all_looks, looks
from reconciler.shell.ports import Tx

#: What a target is compared with: the release assigned to it, or the one that Git asks for now.
AGAINST = ("assigned", "git")
_VERDICTS = {Sync.IN_SYNC: "equal", Sync.DIFFERS: "differs", Sync.MISSING: "differs", Sync.ASK: "predicted"}


async def chosen(daemon: Daemon, name: str | None, cluster: str | None) -> list[Look]:
    """The targets that a question is about. Raises AskError."""
    if cluster is not None:
        find_cluster(daemon, cluster)
    found = await all_looks(daemon) if name is None else await looks(daemon, await find_application(daemon, name))
    found = [look for look in found if cluster in (None, look.target.cluster)]
    if name is not None and cluster is not None and not found:
        raise AskError("unknown-target", f"{name} does not go to cluster {cluster}")
    return found


# ---- diff --------------------------------------------------------------------------------------------------------


async def diff(
    daemon: Daemon, name: str | None, cluster: str | None = None, against: str = "assigned"
) -> dict[str, Any]:
    """Every object of the chosen targets, with what applying it would change; `outdated` counts the targets for which
    Git asks for another release than the assigned one."""
    if against not in AGAINST:
        raise AskError("invalid-value", f"against={against!r}", f"one of {', '.join(AGAINST)}")
    parts: list[ObjectDiff] = []
    looked = await chosen(daemon, name, cluster)
    for look in looked:
        parts += await _target_diff(daemon, look, against)
    outdated = sum(bool(look.assigned and look.goal) and look.goal != look.assigned for look in looked)
    return {"objects": [part.as_json() for part in parts], "against": against, "outdated": outdated}


async def _target_diff(daemon: Daemon, look: Look, against: str) -> list[ObjectDiff]:
    digest = look.goal if against == "git" or not look.assigned else look.assigned
    release = await _release(daemon, look, digest)
    if release is None:
        return []
    objects = await _stamped(daemon, look, release)
    verdicts = {}
    if look.current is not None and digest == look.assigned:
        verdicts = {part.key: part.sync for part in look.current.objects}
    parts = [_object_diff(daemon, look.target, manifest, verdicts.get(key)) for key, manifest in objects.items()]
    if digest != look.assigned:
        before = await _release(daemon, look, look.assigned)
        gone = [item for item in before.objects if ObjectKey.of(item) not in objects] if before is not None else []
        parts += [_dropped(look.target, manifest) for manifest in reversed(gone)]
    return parts


async def _release(daemon: Daemon, look: Look, digest: str) -> Release | None:
    """A release that Git asks for may not be stored yet: it is where it was compiled."""
    if not digest:
        return None
    for name in sorted(daemon.sources):
        snapshot = daemon.sources[name].snapshot
        compiled = snapshot.applications.get(look.target.application) if snapshot is not None else None
        if compiled is not None and digest in compiled.releases:
            return compiled.releases[digest]

    def read(tx: Tx) -> Release | None:
        return tx.release(digest)

    return await daemon.context.store.read("release", read)


async def _stamped(daemon: Daemon, look: Look, release: Release) -> dict[ObjectKey, Manifest]:
    """The objects as they are sent, with the ownership mark."""
    source = look.assignment.source if look.assignment is not None else ""
    for name in sorted(daemon.sources):
        snapshot = daemon.sources[name].snapshot
        if not source and snapshot is not None and look.target.application in snapshot.applications:
            source = name
    owner = owner_hash(daemon.context.installation, source, release.application)
    return {ObjectKey.of(item): stamp(item, owner, release.application) for item in release.objects}


def _object_diff(daemon: Daemon, target: Target, manifest: Manifest, known: Sync | None) -> ObjectDiff:
    key, version = ObjectKey.of(manifest), str(manifest.get("apiVersion", ""))
    application, cluster = target
    lane = daemon.lanes.get(cluster)
    live = NotSeen.NOT_SEEN if lane is None else lane.observer.live(key)
    if isinstance(live, NotSeen):
        return ObjectDiff(key, version, application, cluster, "none", "not-judgeable")
    if live is None:
        effect = manifest_effect(None, manifest)
        return ObjectDiff(key, version, application, cluster, "create", "differs", effect)
    if live["metadata"].get("deletionTimestamp"):
        return ObjectDiff(key, version, application, cluster, "none", "not-judgeable")
    found = () if known is Sync.IN_SYNC else changes(manifest, live)
    if not found and known in (None, Sync.IN_SYNC):
        return ObjectDiff(key, version, application, cluster, "none", "equal")
    effect = manifest_effect(live, predicted(manifest, live), live) if found else NO_EFFECT
    verdict = _VERDICTS.get(known, "predicted") if known is not None else "predicted"
    return ObjectDiff(key, version, application, cluster, "update", verdict, effect, found)


def _dropped(target: Target, manifest: Manifest) -> ObjectDiff:
    key, version = ObjectKey.of(manifest), str(manifest.get("apiVersion", ""))
    effect = manifest_effect(manifest, None)
    return ObjectDiff(key, version, target.application, target.cluster, "delete", "differs", effect)


# ---- health ------------------------------------------------------------------------------------------------------


async def health(daemon: Daemon, name: str, cluster: str | None = None) -> dict[str, Any]:
    """Health of every object of an application, as last seen: the shape of `health -o json`, per target."""
    objects: list[dict[str, Any]] = []
    for look in await chosen(daemon, name, cluster):
        release = await _release(daemon, look, look.assigned)
        manifests = release.objects if release is not None else ()
        objects += _target_health(look, {ObjectKey.of(item): str(item.get("apiVersion", "")) for item in manifests})
    return {"objects": objects}


def _target_health(look: Look, versions: Mapping[ObjectKey, str]) -> Sequence[dict[str, Any]]:
    """A target that nobody has seen at its release, or whose cluster does not answer, is Unknown as a whole."""
    application, cluster = look.target
    where = {"application": application, "cluster": cluster}
    if look.unreachable or look.current is None:
        why = "ClusterUnreachable" if look.unreachable else "NotObserved"
        message = f"cluster {cluster} does not answer" if look.unreachable else "it has not been observed yet"
        empty = {"apiVersion": "", "kind": "", "namespace": "", "name": ""}
        return [{**empty, "health": "Unknown", "reason": why, "message": message, **where}]
    return [
        {
            "apiVersion": versions.get(part.key, ""),
            "kind": part.key.kind,
            "namespace": part.key.namespace,
            "name": part.key.name,
            "health": str(part.health),
            "reason": part.reason.code,
            "message": part.reason.message,
            "sync": str(part.sync),
            **where,
        }
        for part in look.current.objects
    ]


# ---- live status of Flink jobs -------------------------------------------------------------------------------------


async def flink_status(daemon: Daemon, names: Sequence[str]) -> dict[str, Any]:
    """What the live Flink objects of these applications say of their jobs: `plan --live` names exact effects by it."""
    found: list[dict[str, Any]] = []
    for name in names:
        for look in await looks(daemon, name):
            lane = daemon.lanes.get(look.target.cluster)
            for part in look.verdict.objects if look.verdict is not None and lane is not None else ():
                live = lane.observer.live(part.key) if lane is not None else None
                if part.key.group == "flink.apache.org" and isinstance(live, dict):
                    found.append(
                        {"application": name, "cluster": look.target.cluster, "key": list(part.key),
                         "status": live.get("status") or {}}
                    )  # fmt: skip
    return {"objects": found}


async def release(daemon: Daemon, digest: str) -> dict[str, Any]:
    """The objects of a stored release, as declared; what a Secret holds is masked."""

    def read(tx: Tx) -> Release | None:
        return tx.release(digest)

    found = await daemon.context.store.read("release", read)
    if found is None:
        raise AskError("unknown-release", f"there is no release {digest[:40]!r}")
    objects = [masked(manifest) for manifest in found.objects]
    return {"digest": found.digest, "application": found.application, "objects": objects}


def masked(manifest: Manifest) -> Manifest:
    """A manifest that may be shown."""
    if not is_secret(manifest):
        return manifest
    hidden: Manifest = {
        name: dict.fromkeys(manifest[name], MASK) for name in ("data", "stringData") if name in manifest
    }
    return {**manifest, **hidden}
