"""Deletion: preconditions, finalizers, propagation policies, and namespaces that go with everything in them.

An object with finalizers only gets a deletionTimestamp; it is removed by the update that takes the last finalizer away
(`writes.py`). Owner references are not followed: nobody here plays the garbage collector.
"""

from __future__ import annotations

from contextlib import suppress

from reconciler.sim import problems
from reconciler.sim.store import Stored
from reconciler.sim.versions import Object
from reconciler.sim.writes import Options, Target, Writer

POLICY_FINALIZERS = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}


def delete(
    writer: Writer, target: Target, options: Options, *, preconditions: Object, policy: str
) -> tuple[Stored, bool]:
    """Returns (object, whether it is gone): with finalizers it only gets a deletionTimestamp."""
    live = writer.get(target)
    _check_preconditions(target, live, preconditions)
    writer.review_deletion(target, live, options)
    if target.resource.storage == "/namespaces":
        return _delete_namespace(writer, target, live, options)
    metadata = dict(live.value["metadata"])
    finalizers = _finalizers(metadata, policy)
    if not finalizers:
        if options.dry_run:
            return live, True
        return writer.store.drop(target.resource.storage, target.namespace, target.name), True
    if metadata.get("deletionTimestamp") and finalizers == metadata.get("finalizers"):
        return live, False
    if not metadata.get("deletionTimestamp"):
        metadata["deletionTimestamp"] = writer.time()
        metadata["deletionGracePeriodSeconds"] = 0
        if "generation" in metadata:
            metadata["generation"] += 1
    metadata["finalizers"] = finalizers
    return writer.put(target, {**live.value, "metadata": metadata}, live.entries, options.dry_run), False


def _finalizers(metadata: Object, policy: str) -> list[str]:
    """What stands in the way of the removal. A propagation policy is a finalizer, too; the newest one counts."""
    present: list[str] = metadata.get("finalizers", [])
    others = [one for one in present if one not in POLICY_FINALIZERS.values()]
    if policy in POLICY_FINALIZERS:
        return [*others, POLICY_FINALIZERS[policy]]
    return present if metadata.get("deletionTimestamp") and not policy else others


def _check_preconditions(target: Target, live: Stored, preconditions: Object) -> None:
    uid, revision = preconditions.get("uid"), preconditions.get("resourceVersion")
    if uid and uid != live.uid:
        why = (
            f"the UID in the precondition ({uid}) does not match the UID in record ({live.uid}). "
            "The object might have been deleted and then recreated"
        )
        raise problems.precondition_failed(target.resource, target.name, why)
    if revision and revision != str(live.revision):
        why = (
            f"the ResourceVersion in the precondition ({revision}) does not match the ResourceVersion in record "
            f"({live.revision}). The object might have been modified"
        )
        raise problems.precondition_failed(target.resource, target.name, why)


def _delete_namespace(writer: Writer, target: Target, live: Stored, options: Options) -> tuple[Stored, bool]:
    """A namespace is Terminating until everything in it is gone (`finish_namespaces`)."""
    if options.dry_run or live.value["metadata"].get("deletionTimestamp"):
        return live, False
    metadata = {**live.value["metadata"], "deletionTimestamp": writer.time()}
    value = {**live.value, "metadata": metadata, "status": {"phase": "Terminating"}}
    return writer.put(target, value, live.entries, dry_run=False), False


def finish_namespaces(writer: Writer) -> None:
    """The namespace controller's part: empty the namespaces that are being deleted, remove those that are empty."""
    for (_, name), live in sorted(writer.store.shelf("/namespaces").objects.items()):
        if live.value["metadata"].get("deletionTimestamp"):
            _finish_namespace(writer, name)


def _finish_namespace(writer: Writer, name: str) -> None:
    for resource in writer.catalog.resources:
        inside = sorted(key for key in writer.store.shelf(resource.storage).objects if key[0] == name)
        for namespace, inner in inside if resource.namespaced else ():
            target = Target(resource, namespace, inner)
            # What a webhook does not let go keeps its namespace; the controller tries again.
            with suppress(problems.ApiError):
                delete(writer, target, Options("namespace-controller"), preconditions={}, policy="")
    if not any(key[0] == name for shelf in writer.store.shelves.values() for key in shelf.objects):
        writer.store.drop("/namespaces", "", name)
