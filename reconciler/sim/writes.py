"""Writes: how a create, update, apply or delete becomes the next version of an object.

Every write goes the same way: make the new value, complete it (defaults), see whether anything changed, count the
generation, validate, record who owns what, store. A dry run stops before the last step. An object whose value and
ownership stay the same keeps its resourceVersion: only the times in managedFields would differ, and they do not count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from reconciler.sim import fieldset, merge, ownership, problems
from reconciler.sim.complete import bad_base64, complete, zero
from reconciler.sim.fieldset import EMPTY, MEMBER, FieldSet
from reconciler.sim.ownership import Entry, Owner
from reconciler.sim.schema import Catalog, Resource
from reconciler.sim.store import Store, Stored
from reconciler.sim.validation import validate

Object = dict[str, Any]
STATUS: FieldSet = {"f:status": MEMBER}
NOT_STATUS: FieldSet = {"f:metadata": MEMBER, "f:spec": MEMBER}
WITHOUT_GENERATION = frozenset(
    ("ConfigMap", "Secret", "Service", "ServiceAccount", "Namespace", "PersistentVolumeClaim", "PersistentVolume", "Role",
     "RoleBinding", "ClusterRole", "ClusterRoleBinding", "Endpoints", "Event", "LimitRange", "ResourceQuota",
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


@dataclass(frozen=True, slots=True)
class Options:
    """How a write is to be done."""

    manager: str
    dry_run: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """Which object, and through which endpoint."""

    resource: Resource
    namespace: str
    name: str
    subresource: str = ""


class Writer:
    """Creates, updates, applies and deletes in one store. `now` is the epoch time; `seed` makes uids."""

    def __init__(self, store: Store, catalog: Catalog, now: Callable[[], float], seed: str) -> None:
        self._store = store
        self.catalog = catalog
        self._now = now
        self._seed = seed

    # ------------------------------------------------------------------------------------------------- plumbing

    def find(self, target: Target) -> Stored | None:
        """The live object."""
        return self._store.shelf(target.resource.storage).objects.get((target.namespace, target.name))

    def get(self, target: Target) -> Stored:
        """The live object; 404 when there is none."""
        stored = self.find(target)
        if stored is None:
            raise problems.not_found(target.resource, target.name)
        return stored

    def time(self) -> str:
        """Now, as objects show it."""
        return datetime.fromtimestamp(int(self._now()), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def random(self, purpose: str) -> str:
        """Sixteen bytes in hex that look random and follow from the seed."""
        self._store.counter += 1
        source = f"{self._seed}/{purpose}/{self._store.counter}"
        return hashlib.blake2b(source.encode(), digest_size=16).hexdigest()

    def _uid(self) -> str:
        text = self.random("uid")
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"

    def _put(self, target: Target, value: Object, entries: dict[Owner, Entry], dry_run: bool) -> Stored:
        metadata = dict(value["metadata"])
        metadata.pop("managedFields", None)
        if entries:
            metadata["managedFields"] = ownership.encode(entries)
        value = {**value, "metadata": metadata}
        if dry_run:
            return Stored(value, int(metadata.get("resourceVersion", "0")), entries)
        return self._store.put(target.resource.storage, target.namespace, target.name, value, entries)

    # --------------------------------------------------------------------------------------------------- create

    def create(self, target: Target, body: Object, options: Options) -> Stored:
        """POST: everything the author set, and every default, is theirs."""
        metadata = body.get("metadata") or {}
        if metadata.get("resourceVersion"):
            raise problems.internal("resourceVersion should not be set on objects to be created")
        if not target.name and metadata.get("generateName"):
            suffix = "".join("bcdfghjklmnpqrstvwxz2456789"[int(c, 16)] for c in self.random("name")[:5])
            target = Target(target.resource, target.namespace, metadata["generateName"] + suffix)
        self._namespace_exists(target)
        value = self._new_object(target, body)
        live = self.find(target)
        if live is not None:
            deleting = bool(live.value["metadata"].get("deletionTimestamp"))
            raise problems.already_exists(target.resource, target.name, deleting=deleting)
        resource = target.resource
        before = {} if resource.custom else zero(resource.node)
        before["metadata"] = {}
        owner = Owner(options.manager, "Update", resource.api_version)
        sent = _without_allocations(value, body) if resource.storage == "/services" else value
        entries = ownership.update(resource.node, before, sent, {}, owner, self.time())
        return self._put(target, value, entries, options.dry_run)

    def _namespace_exists(self, target: Target) -> None:
        if not target.resource.namespaced:
            return
        namespace = self._store.shelf("/namespaces").objects.get(("", target.namespace))
        if namespace is None:
            raise problems.namespace_not_found(target.namespace)
        if namespace.value["metadata"].get("deletionTimestamp"):
            why = f"unable to create new content in namespace {target.namespace} because it is being terminated"
            resource = target.resource
            details: Object = {"name": target.name, "kind": resource.plural}
            if resource.group:
                details["group"] = resource.group
            cause = {"reason": "NamespaceTerminating", "field": "metadata.namespace"}
            cause["message"] = f"namespace {target.namespace} is being terminated"
            details["causes"] = [cause]
            message = f'{resource.qualified} "{target.name}" is forbidden: {why}'
            raise problems.ApiError(problems.status(403, message, details=details))

    def _new_object(self, target: Target, body: Object, *, applied: bool = False) -> Object:
        """The first version: system fields set, completed, validated."""
        resource = target.resource
        given = body.get("metadata") or {}
        dropped = ("uid", "resourceVersion", "generation", "selfLink", "deletionTimestamp", "managedFields",
                   "deletionGracePeriodSeconds", "creationTimestamp")  # fmt: skip
        metadata = {key: value for key, value in given.items() if key not in dropped}
        metadata["name"] = target.name
        if resource.namespaced:
            metadata["namespace"] = target.namespace
        metadata["uid"] = self._uid()
        metadata["creationTimestamp"] = self.time()
        if resource.custom or resource.kind not in WITHOUT_GENERATION:
            metadata["generation"] = 1
        # Kind, apiVersion and metadata stand first in every stored object: lists of built-in kinds cut the first two off.
        head = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
        value = {**head, **{key: part for key, part in body.items() if key not in head}}
        if "status" in resource.subresources:
            value.pop("status", None)
        if resource.storage == "/namespaces":
            metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": target.name}
            value["spec"] = {"finalizers": ["kubernetes"]}
            value["status"] = {"phase": "Active"}
        value = complete(resource, value, None, applied=applied)
        if not resource.custom and isinstance(value.get("status"), dict):
            # A built-in status begins as its Go type's zero value: required counts are there, and 0.
            counts = resource.node.fields["status"].required
            value = {**value, "status": {**dict.fromkeys(counts, 0), **value["status"]}}
        if resource.storage == "/services":
            value = self._with_address(value)
        if resource.storage == "/pods":
            value = {**value, "spec": {**POD_ADMISSION, **value["spec"]}, "status": POD_STATUS}
        self._validate(target, value, None)
        return value

    def _with_address(self, service: Object) -> Object:
        spec = service["spec"]
        if spec.get("type") == "ExternalName":
            return service
        if not spec.get("clusterIP"):
            self._store.counter += 1
            address = f"10.96.{self._store.counter // 254 % 256}.{self._store.counter % 254 + 1}"
            spec = {**spec, "clusterIP": address}
        return {**service, "spec": {**spec, "clusterIPs": [spec["clusterIP"]]}}

    def _validate(self, target: Target, value: Object, live: Object | None) -> None:
        causes = validate(target.resource, value, live)
        if causes:
            raise problems.invalid(target.resource, target.name, causes)

    # --------------------------------------------------------------------------------------------------- update

    def update(self, target: Target, live: Stored, wanted: Object, options: Options) -> Stored:
        """PUT and merge patch: what changed belongs to the writer. `wanted` is the whole object as it is to be."""
        expected = (wanted.get("metadata") or {}).get("resourceVersion")
        if expected and expected != str(live.revision):
            raise problems.conflict(target.resource, target.name, problems.STALE)
        value = self._next_value(target, live, wanted)
        owner = Owner(options.manager, "Update", target.resource.api_version, target.subresource)
        entries: dict[Owner, Entry] = {}
        sent = (wanted.get("metadata") or {}).get("managedFields")
        known = live.entries
        if not target.subresource and sent is not None:
            known = _entries_of_request(sent, known)
        # An object that nobody owns anything of (or whose managedFields this write resets) stays so.
        if known:
            entries = ownership.update(
                target.resource.node, live.value, _without_revision(value, live), known, owner, self.time()
            )
        return self._replace(target, live, value, entries, options)

    def _next_value(self, target: Target, live: Stored, wanted: Object, *, applied: bool = False) -> Object:
        """The wanted object, restricted to what the endpoint may write, completed and validated."""
        before = live.value
        old_metadata = before["metadata"]
        if target.subresource == "status":
            value = {**before}
            value.pop("status", None)
            if wanted.get("status") is not None:
                value["status"] = wanted["status"]
            metadata = old_metadata
        else:
            value = {key: before[key] for key in ("kind", "apiVersion")} | {"metadata": {}}
            value |= {key: part for key, part in wanted.items() if key not in value}
            if "status" in target.resource.subresources:
                value.pop("status", None)
                if "status" in before:
                    value["status"] = before["status"]
            metadata = self._next_metadata(old_metadata, wanted.get("metadata") or {})
        value["metadata"] = metadata
        value = complete(target.resource, value, before, applied=applied)
        if target.resource.storage == "/services" and not target.subresource:
            value = _keep_address(value, before)
        if self._generation_changes(target.resource, before, value):
            value["metadata"] = {**value["metadata"], "generation": old_metadata["generation"] + 1}
        self._validate(target, value, before)
        return value

    def _next_metadata(self, before: Object, wanted: Object) -> Object:
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

    def _generation_changes(self, resource: Resource, before: Object, after: Object) -> bool:
        if "generation" not in before["metadata"]:
            return False
        if not resource.custom:
            changed = not merge.same(before.get("spec"), after.get("spec"))
            if resource.kind == "Deployment":
                old, new = before["metadata"].get("annotations"), after["metadata"].get("annotations")
                changed = changed or not merge.same(old or {}, new or {})
            return changed
        ignored = {"metadata"} | ({"status"} if "status" in resource.subresources else set())
        keys = sorted((before.keys() | after.keys()) - ignored)
        return any(not merge.same(before.get(key), after.get(key)) for key in keys)

    def _replace(
        self, target: Target, live: Stored, value: Object, entries: dict[Owner, Entry], options: Options
    ) -> Stored:
        """Store the next version, unless it is the live one; remove it when its last finalizer is gone."""
        entries = _keep_times(live, value, entries)
        if entries == live.entries and _same_object(live.value, value):
            return live
        metadata = value["metadata"]
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            last = Stored(_with_entries(value, entries), live.revision, entries)
            if not options.dry_run:
                self._store.drop(target.resource.storage, target.namespace, target.name)
            return last
        return self._put(target, value, entries, options.dry_run)

    # ---------------------------------------------------------------------------------------------------- apply

    def apply(self, target: Target, config: Object, options: Options) -> tuple[Stored, bool]:
        """Server-side apply. Returns the object and whether it was created."""
        resource = target.resource
        if (config.get("metadata") or {}).get("managedFields") is not None:
            raise problems.bad_request("metadata.managedFields must be nil")
        self._must_be_typed(target, config)
        live = self.find(target)
        owner = Owner(options.manager, "Apply", resource.api_version, target.subresource)
        reset = NOT_STATUS if target.subresource else (STATUS if "status" in resource.subresources else EMPTY)
        if live is None:
            return self._apply_absent(target, config, owner, reset, options), True
        entries = live.entries or self._before_first_apply(target, live)
        outcome = ownership.apply(resource.node, _bare(live), config, entries, owner, force=options.force, reset=reset)
        if outcome.conflicts and not options.force:
            raise problems.ApiError(conflict_status(outcome.conflicts))
        config_metadata = config.get("metadata") or {}
        expected = config_metadata.get("resourceVersion")
        if expected and expected != str(live.revision):
            raise problems.conflict(resource, target.name, problems.STALE)
        value = self._next_value(target, live, outcome.value, applied=True)
        after = outcome.entries
        if owner in after and not _unchanged(live, outcome.value):
            after[owner] = Entry(after[owner].fields, self.time())
        return self._replace(target, live, value, after, options), False

    def _apply_absent(self, target: Target, config: Object, owner: Owner, reset: FieldSet, options: Options) -> Stored:
        if target.subresource:
            raise problems.not_found(target.resource, target.name)
        uid = (config.get("metadata") or {}).get("uid")
        if uid:
            why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            raise problems.conflict(target.resource, target.name, why)
        self._namespace_exists(target)
        value = self._new_object(target, config, applied=True)
        owned = fieldset.without_subtrees(merge.field_set(target.resource.node, config), reset)
        owned = fieldset.difference(owned, ownership.SERVER_FIELDS)
        entries = {owner: Entry(owned, self.time())} if owned else {}
        return self._put(target, value, entries, options.dry_run)

    def _must_be_typed(self, target: Target, config: Object) -> None:
        errors = merge.type_errors(target.resource.node, config)
        undecodable = bad_base64(config) if target.resource.storage == "/secrets" and not errors else ""
        if not errors and not undecodable:
            return
        texts = [f"{path}: {message}" if path else message for path, message in errors]
        shown = (
            ""
            if not texts
            else texts[0]
            if len(texts) == 1
            else "\n".join(["errors:", *(f"  {text}" for text in texts)])
        )
        resource = target.resource
        metadata = config.get("metadata") or {}
        namespace, name = metadata.get("namespace", ""), metadata.get("name", "")
        identity = f"{namespace}/{name}; {resource.group}/{resource.version}, Kind={resource.kind}"
        if not errors:
            why = f"unable to convert unstructured object to {resource.group}/{resource.version}, Kind={resource.kind}"
            raise problems.internal(
                f"failed to convert new object ({identity}) to proper version: {why}: error decoding from json: {undecodable}"
            )
        raise problems.internal(f"failed to create typed patch object ({identity}): {shown}")

    def _before_first_apply(self, target: Target, live: Stored) -> dict[Owner, Entry]:
        """An object without managedFields is given to a manager of its own at its first apply."""
        resource = target.resource
        owner = Owner("before-first-apply", "Update", resource.api_version, target.subresource)
        before = {} if resource.custom else zero(resource.node)
        before["metadata"] = {}
        return ownership.update(resource.node, before, _bare(live), {}, owner, self.time())

    # --------------------------------------------------------------------------------------------------- delete

    def delete(self, target: Target, options: Options, *, preconditions: Object, policy: str) -> tuple[Stored, bool]:
        """Returns (object, whether it is gone): with finalizers it only gets a deletionTimestamp."""
        live = self.get(target)
        self._check_preconditions(target, live, preconditions)
        metadata = dict(live.value["metadata"])
        finalizers = [one for one in metadata.get("finalizers", ()) if one not in ("orphan", "foregroundDeletion")]
        if policy in _POLICY_FINALIZERS:
            finalizers.append(_POLICY_FINALIZERS[policy])
        elif metadata.get("deletionTimestamp") and not policy:
            finalizers = metadata.get("finalizers", [])
        if target.resource.storage == "/namespaces":
            return self._delete_namespace(target, live, options)
        if not finalizers:
            if options.dry_run:
                return live, True
            return self._store.drop(target.resource.storage, target.namespace, target.name), True
        if metadata.get("deletionTimestamp") and finalizers == metadata.get("finalizers"):
            return live, False
        if not metadata.get("deletionTimestamp"):
            metadata["deletionTimestamp"] = self.time()
            metadata["deletionGracePeriodSeconds"] = 0
            if "generation" in metadata:
                metadata["generation"] += 1
        metadata["finalizers"] = finalizers
        return self._put(target, {**live.value, "metadata": metadata}, live.entries, options.dry_run), False

    def _check_preconditions(self, target: Target, live: Stored, preconditions: Object) -> None:
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

    def _delete_namespace(self, target: Target, live: Stored, options: Options) -> tuple[Stored, bool]:
        """A namespace is Terminating until everything in it is gone; the namespace controller's part is done at once."""
        if options.dry_run:
            return live, False
        if not live.value["metadata"].get("deletionTimestamp"):
            metadata = {**live.value["metadata"], "deletionTimestamp": self.time()}
            value = {**live.value, "metadata": metadata, "status": {"phase": "Terminating"}}
            live = self._put(target, value, live.entries, dry_run=False)
        return live, False

    def finish_namespaces(self) -> None:
        """The namespace controller's part: empty the namespaces that are being deleted, remove those that are empty."""
        shelf = self._store.shelf("/namespaces")
        for (_, name), live in sorted(shelf.objects.items()):
            if live.value["metadata"].get("deletionTimestamp"):
                self._finish_namespace(name)

    def _finish_namespace(self, name: str) -> None:
        for resource in self.catalog.resources:
            inside = sorted(key for key in self._store.shelf(resource.storage).objects if key[0] == name)
            for namespace, inner in inside if resource.namespaced else ():
                target = Target(resource, namespace, inner)
                self.delete(target, Options("namespace-controller"), preconditions={}, policy="")
        if not any(key[0] == name for shelf in self._store.shelves.values() for key in shelf.objects):
            self._store.drop("/namespaces", "", name)


_POLICY_FINALIZERS = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}


ALLOCATED = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")


def _without_allocations(service: Object, body: Object) -> Object:
    """A new Service as its author sent it: the addresses were allocated afterwards and are nobody's."""
    sent = body.get("spec") or {}
    spec = {key: part for key, part in service["spec"].items() if key in sent or key not in ALLOCATED}
    return {**service, "spec": spec}


def _bare(live: Stored) -> Object:
    """The live object without managedFields, for comparing."""
    metadata = live.value["metadata"]
    if "managedFields" not in metadata:
        return live.value
    return {**live.value, "metadata": {key: value for key, value in metadata.items() if key != "managedFields"}}


def _without_revision(value: Object, live: Stored) -> Object:
    """The value with the live object's own bookkeeping, so that comparing shows what the writer changed."""
    metadata = {**value["metadata"], "managedFields": live.value["metadata"].get("managedFields")}
    if metadata["managedFields"] is None:
        del metadata["managedFields"]
    return {**value, "metadata": metadata}


def _with_entries(value: Object, entries: dict[Owner, Entry]) -> Object:
    metadata = {key: part for key, part in value["metadata"].items() if key != "managedFields"}
    if entries:
        metadata["managedFields"] = ownership.encode(entries)
    return {**value, "metadata": metadata}


def _unchanged(live: Stored, merged: Object) -> bool:
    """Whether the merge left the live object as it was."""
    return _same_object(live.value, merged)


def _same_object(before: Object, after: Object) -> bool:
    """Equality but for managedFields and resourceVersion."""
    if before.keys() != after.keys():
        return False
    for key, value in after.items():
        old = before[key]
        if key == "metadata":
            ignored = ("managedFields", "resourceVersion")
            left = {name: part for name, part in old.items() if name not in ignored}
            right = {name: part for name, part in value.items() if name not in ignored}
            if not merge.same(left, right):
                return False
        elif not merge.same(old, value):
            return False
    return True


def _keep_times(live: Stored, value: Object, entries: dict[Owner, Entry]) -> dict[Owner, Entry]:
    """A write that changes neither values nor ownership keeps the old times, and so is no change."""
    old = live.entries
    if entries.keys() != old.keys() or any(entries[owner].fields != old[owner].fields for owner in old):
        return entries
    return old if _same_object(live.value, value) else entries


def _keep_address(value: Object, before: Object) -> Object:
    """A Service keeps its address when the writer leaves it out."""
    spec, old = value.get("spec", {}), before.get("spec", {})
    if spec.get("clusterIP") or not old.get("clusterIP"):
        return value
    kept = {key: old[key] for key in ("clusterIP", "clusterIPs") if key in old}
    return {**value, "spec": {**spec, **kept}}


def _entries_of_request(sent: Any, known: dict[Owner, Entry]) -> dict[Owner, Entry]:
    """A PUT or merge patch may edit managedFields: [] or [{}] resets them, anything undecodable is ignored."""
    if sent == [] or sent == [{}]:
        return {}
    try:
        decoded = ownership.decode(sent)
    except ValueError:
        return known
    return decoded or known


def conflict_status(conflicts: tuple[tuple[Owner, FieldSet], ...]) -> problems.Status:
    """The 409 that names every manager and path in the way."""
    found: list[tuple[str, str]] = []
    for owner, fields in conflicts:
        found += [(_manager_text(owner), path) for path in fieldset.paths(fields)]
    found.sort(key=lambda one: one[0])
    if len(found) == 1:
        text = f"conflict with {found[0][0]}: {found[0][1]}"
    else:
        lines = []
        previous = None
        for manager, path in found:
            if manager != previous:
                lines.append(f"conflicts with {manager}:")
                previous = manager
            lines.append(f"- {path}")
        text = "\n".join(lines)
    plural = "" if len(found) == 1 else "s"
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {manager}", "field": path}
        for manager, path in found
    ]
    message = f"Apply failed with {len(found)} conflict{plural}: {text}"
    return problems.status(409, message, details={"causes": causes})


def _manager_text(owner: Owner) -> str:
    """How a conflict names a manager: with subresource, and for updates with version and time left out."""
    text = f'"{owner.manager}"'
    if owner.subresource:
        text += f' with subresource "{owner.subresource}"'
    if owner.operation == "Update":
        text += f" using {owner.api_version}"
    return text
