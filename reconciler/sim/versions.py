"""Versions of an object: small pure functions from one version to the next.

They say what a write may not touch (identity, generation, allocated addresses), what the server adds by itself, and
whether two versions are the same.
"""

from __future__ import annotations

from typing import Any

from reconciler.sim import ownership, problems
from reconciler.sim.complete import complete
from reconciler.sim.ownership import Entry, Owner
from reconciler.sim.schema import Resource
from reconciler.sim.store import Stored
from reconciler.sim.typed import same, type_errors

Object = dict[str, Any]
#: Kinds without a spec to count changes of.
WITHOUT_GENERATION = frozenset(
    ("ConfigMap", "Secret", "Service", "ServiceAccount", "Namespace", "PersistentVolumeClaim", "PersistentVolume",
     "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "Endpoints", "Event", "LimitRange", "ResourceQuota",
     "HorizontalPodAutoscaler", "Node", "ControllerRevision", "ComponentStatus")
)  # fmt: skip
_UNREADY = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
#: What the real server's admission adds to a pod, and the status it begins with.
POD_ADMISSION: Object = {
    "tolerations": [
        {"key": "node.kubernetes.io/not-ready", **_UNREADY},
        {"key": "node.kubernetes.io/unreachable", **_UNREADY},
    ],
    "priority": 0,
    "enableServiceLinks": True,
    "preemptionPolicy": "PreemptLowerPriority",
}
POD_STATUS: Object = {"phase": "Pending", "qosClass": "BestEffort"}


def next_metadata(before: Object, wanted: Object) -> Object:
    """The metadata a writer wants, with what only the server sets kept from the live object."""
    metadata = {key: value for key, value in wanted.items() if value is not None and key != "managedFields"}
    for key in ("generation", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion", "selfLink"):
        metadata.pop(key, None)
        if key in before:
            metadata[key] = before[key]
    for key in ("name", "namespace", "uid", "creationTimestamp"):
        if key in before and not metadata.get(key):
            metadata[key] = before[key]
    metadata["creationTimestamp"] = before["creationTimestamp"]
    return metadata


def generation_changes(resource: Resource, before: Object, after: Object) -> bool:
    """Whether what an object asks for has changed: its spec; of a custom kind everything but metadata and status."""
    if "generation" not in before["metadata"]:
        return False
    if not resource.custom:
        changed = not same(before.get("spec"), after.get("spec"))
        if resource.kind == "Deployment":
            old, new = before["metadata"].get("annotations"), after["metadata"].get("annotations")
            changed = changed or not same(old or {}, new or {})
        return changed
    ignored = {"metadata"} | ({"status"} if "status" in resource.subresources else set())
    keys = sorted((before.keys() | after.keys()) - ignored)
    return any(not same(before.get(key), after.get(key)) for key in keys)


ALLOCATED = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")


def without_allocations(service: Object, body: Object) -> Object:
    """A new Service as its author sent it: the addresses were allocated afterwards and are nobody's."""
    sent = body.get("spec") or {}
    spec = {key: part for key, part in service["spec"].items() if key in sent or key not in ALLOCATED}
    return {**service, "spec": spec}


def bare(live: Stored) -> Object:
    """The live object without managedFields, for comparing."""
    metadata = live.value["metadata"]
    if "managedFields" not in metadata:
        return live.value
    return {**live.value, "metadata": {key: value for key, value in metadata.items() if key != "managedFields"}}


def without_revision(value: Object, live: Stored) -> Object:
    """The value with the live object's own bookkeeping, so that comparing shows what the writer changed."""
    metadata = {**value["metadata"], "managedFields": live.value["metadata"].get("managedFields")}
    if metadata["managedFields"] is None:
        del metadata["managedFields"]
    return {**value, "metadata": metadata}


def with_entries(value: Object, entries: dict[Owner, Entry]) -> Object:
    """`value` with `entries` as its managedFields, without any if there are none."""
    metadata = {key: part for key, part in value["metadata"].items() if key != "managedFields"}
    if entries:
        metadata["managedFields"] = ownership.encode(entries)
    return {**value, "metadata": metadata}


def unchanged(live: Stored, merged: Object) -> bool:
    """Whether the merge left the live object as it was."""
    return same_object(live.value, merged)


def same_object(before: Object, after: Object) -> bool:
    """Equality but for managedFields and resourceVersion."""
    if before.keys() != after.keys():
        return False
    for key, value in after.items():
        old = before[key]
        if key == "metadata":
            ignored = ("managedFields", "resourceVersion")
            left = {name: part for name, part in old.items() if name not in ignored}
            right = {name: part for name, part in value.items() if name not in ignored}
            if not same(left, right):
                return False
        elif not same(old, value):
            return False
    return True


def keep_times(live: Stored, value: Object, entries: dict[Owner, Entry]) -> dict[Owner, Entry]:
    """A write that changes neither values nor ownership keeps the old times, and so is no change."""
    old = live.entries
    if entries.keys() != old.keys() or any(entries[owner].fields != old[owner].fields for owner in old):
        return entries
    return old if same_object(live.value, value) else entries


def keep_address(value: Object, before: Object) -> Object:
    """A Service keeps its address when the writer leaves it out."""
    spec, old = value.get("spec", {}), before.get("spec", {})
    if spec.get("clusterIP") or not old.get("clusterIP"):
        return value
    kept = {key: old[key] for key in ("clusterIP", "clusterIPs") if key in old}
    return {**value, "spec": {**spec, **kept}}


def entries_of_request(sent: Any, known: dict[Owner, Entry], resource: Resource) -> dict[Owner, Entry]:
    """A PUT or patch may edit managedFields: [] or [{}] resets them, anything undecodable is ignored, and who wrote at
    a version that is not served has written nothing."""
    if sent == [] or sent == [{}]:
        return {}
    try:
        decoded = ownership.decode(sent)
    except ValueError:
        return known
    return {owner: entry for owner, entry in decoded.items() if owner.api_version == resource.api_version}


def after_webhooks(
    resource: Resource, value: Object, changed: Object, entries: dict[Owner, Entry], *, applied: bool
) -> tuple[Object, dict[Owner, Entry]]:
    """What mutating webhooks made of a value, and its owners: what the type does not know is lost, defaults are set
    anew. Nobody owns what was added; managedFields that a webhook writes itself count."""
    if any(changed["metadata"].get(key) != value["metadata"].get(key) for key in ("name", "namespace")):
        raise problems.not_simulated("a webhook that renames an object")
    known = {key: part for key, part in changed.items() if key in resource.node.fields}
    for path, message in [] if resource.custom else type_errors(resource.node, known):
        raise problems.internal_error(f"json: cannot unmarshal into Go struct field {resource.kind}{path}: {message}")
    entries = entries_of_request(changed["metadata"].get("managedFields", []), entries, resource)
    metadata = {key: part for key, part in changed["metadata"].items() if key != "managedFields"}
    return complete(resource, {**changed, "metadata": metadata}, value, applied=applied), entries


def untidy(resource: Resource, applied: Object) -> tuple[str, ...]:
    """The empty parts of metadata that an apply leaves in a custom object's stored bytes."""
    if not resource.custom:
        return ()
    metadata = applied.get("metadata") or {}
    parts = ("labels", "annotations", "finalizers", "ownerReferences")
    return tuple(name for name in parts if name in metadata and not metadata[name])
