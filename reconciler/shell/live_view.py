"""What differs on the clusters, and how healthy it is: per object, for people.

The objects are those that the lanes have in memory: asking costs the clusters nothing. Equality is the lane's own
verdict (exact, by ownership, by the server where need be); the paths are worded on the client.

    await diff(daemon, "orders", "eu-west-1a")      # {"objects": [...]}: the shape of `diff -o json`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from reconciler.core.apply_rules import rules_by_object, rules_from_text
from reconciler.core.as_sent import as_sent
from reconciler.core.diff import compare
from reconciler.core.explain_diff import MASK, Change, changes, is_secret
from reconciler.core.field_paths import writers_of
from reconciler.core.managed_fields import FIELD_MANAGER
from reconciler.core.model import Manifest, ObjectKey, ObjectVerdict, Reason, Release, Sync, Target
from reconciler.core.ownership import owner_hash, stamp
from reconciler.core.plan_diff import NO_EFFECT, ObjectDiff, manifest_effect
from reconciler.core.predict import predicted
from reconciler.core.values import clean_text
from reconciler.shell.asking import AskError, find_application, find_cluster
from reconciler.shell.daemon import Daemon
from reconciler.shell.foresight import foreseen
from reconciler.shell.live import NotSeen
from reconciler.shell.looks import Look, all_looks, goals_of, looks
from reconciler.shell.ports import Tx
from reconciler.shell.releases import SentRelease

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
    sent: dict[Target, SentRelease] = {}
    for look in looked:
        parts += await _target_diff(daemon, look, against, sent)
    if against == "git":
        parts = await foreseen(daemon, parts, sent)
    outdated = sum(bool(look.assigned and look.goal) and look.goal != look.assigned for look in looked)
    return {"objects": [part.as_json() for part in parts], "against": against, "outdated": outdated}


async def _target_diff(
    daemon: Daemon, look: Look, against: str, foretold: dict[Target, SentRelease]
) -> list[ObjectDiff]:
    """The objects of one target. `foretold` is given what is to be sent of a release that is not assigned yet."""
    digest = look.goal if against == "git" or not look.assigned else look.assigned
    release = await _release(daemon, look, digest)
    if release is None:
        return []
    sent = await _sent(daemon, look, release)
    verdicts = {}
    if look.current is not None and digest == look.assigned:
        verdicts = {part.key: part for part in look.current.objects}
    if not look.seen:
        # What was last seen there may be different by now.
        why = _unseen(look).message
        return [
            ObjectDiff(key, str(item.get("apiVersion", "")), *look.target, "none", "not-judgeable", message=why)
            for key, item in sent.objects.items()
        ]
    parts = [_object_diff(daemon, look.target, key, sent, verdicts.get(key)) for key in sent.objects]
    if digest != look.assigned:
        foretold[look.target] = sent
        before = await _release(daemon, look, look.assigned)
        gone = [item for item in before.objects if ObjectKey.of(item) not in sent.objects] if before else []
        parts += [_dropped(look.target, manifest) for manifest in reversed(gone)]
    return parts


def _unseen(look: Look) -> Reason:
    """Why nothing can be said of a target now."""
    if look.unreachable:
        return Reason("ClusterUnreachable", f"cluster {look.target.cluster} does not answer")
    return look.blind or Reason("NotObserved", "it has not been observed yet")


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


async def _sent(daemon: Daemon, look: Look, release: Release) -> SentRelease:
    """The release as it would be sent, with the ownership mark and the rules that hold now."""
    source = look.assignment.source if look.assignment is not None else goals_of(daemon, release.application)[0]
    owner = owner_hash(daemon.context.installation, source, release.application)
    objects = {ObjectKey.of(item): stamp(item, owner, release.application) for item in release.objects}
    application = look.target.application
    text = await daemon.context.store.read("apply-rules", lambda tx: tx.apply_rules(application))
    rules = rules_from_text(text)
    by_object = rules_by_object(rules, release.objects)
    return SentRelease(release.digest, release.application, owner, objects, source, rules, by_object)


def _object_diff(
    daemon: Daemon, target: Target, key: ObjectKey, sent: SentRelease, known: ObjectVerdict | None
) -> ObjectDiff:
    manifest = sent.objects[key]
    found = ObjectDiff(key, str(manifest.get("apiVersion", "")), *target, "none", "not-judgeable")
    lane = daemon.lanes.get(target.cluster)
    live = NotSeen.NOT_SEEN if lane is None else lane.observer.live(key)
    if isinstance(live, NotSeen):
        return replace(found, message="it has not been observed yet")
    if live is None:
        return replace(found, action="create", verdict="differs", effect=manifest_effect(None, manifest))
    if live["metadata"].get("deletionTimestamp"):
        return replace(found, message="it is being deleted")
    if known is not None and known.sync is Sync.IN_SYNC:
        message = known.message if known.by_client else ""
        return replace(found, verdict="not-judgeable" if known.by_client else "equal", message=message)
    wanted = as_sent(manifest, live, sent.by_object.get(key))
    shown, owners_only = _differences(wanted, live, known)
    if known is not None and lane is not None:
        shown = shown or lane.judging.server_says(target, key)
        owners_only = known.ownership_only
    if not shown and known is None:
        return replace(found, verdict="equal")
    writers = {writer.manager for change in shown for writer in writers_of(live, change.place, FIELD_MANAGER)}
    verdict = _VERDICTS.get(known.sync, "predicted") if known is not None else "predicted"
    effect = manifest_effect(live, predicted(wanted, live), live) if shown and not owners_only else NO_EFFECT
    return replace(
        found,
        action="update",
        verdict="not-judgeable" if known is not None and known.by_client else verdict,
        effect=effect,
        changes=shown,
        conflicts=tuple(sorted(clean_text(writer, 120) for writer in writers if not owners_only)),
        ownership=owners_only,
        message=known.message if known is not None else "",
    )


def _differences(wanted: Manifest, live: Manifest, known: ObjectVerdict | None) -> tuple[tuple[Change, ...], bool]:
    """What differs as the client sees it, and whether that is only who owns what."""
    comparison = compare(wanted, live)
    if comparison.changes:
        return comparison.changes, comparison.ownership_only
    if known is None and comparison.sync is Sync.IN_SYNC:
        return (), False
    return changes(wanted, live), False


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
    if not look.seen or look.current is None:
        why = _unseen(look)
        empty = {"apiVersion": "", "kind": "", "namespace": "", "name": ""}
        return [{**empty, "health": "Unknown", "reason": why.code, "message": why.message, **where}]
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
            "difference": part.message,
            **where,
        }
        for part in look.current.objects
    ]


# ---- live status of Flink jobs -------------------------------------------------------------------------------------


async def flink_status(daemon: Daemon, names: Sequence[str]) -> dict[str, Any]:
    """What the live Flink objects of these applications say of their jobs: `plan --live` names exact effects by it.
    What was last seen of a target that cannot be seen now says nothing of its jobs: it is `unseen`, with why."""
    found: list[dict[str, Any]] = []
    unseen: list[dict[str, Any]] = []
    for name in names:
        for look in await looks(daemon, name):
            where = {"application": name, "cluster": look.target.cluster}
            if not look.seen:
                why = _unseen(look)
                unseen.append({**where, "reason": why.code, "message": why.message})
                continue
            lane = daemon.lanes.get(look.target.cluster)
            for part in look.verdict.objects if look.verdict is not None and lane is not None else ():
                live = lane.observer.live(part.key) if lane is not None else None
                if part.key.group == "flink.apache.org" and isinstance(live, dict):
                    found.append({**where, "key": list(part.key), "status": live.get("status") or {}})
    return {"objects": found, "unseen": unseen}


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
