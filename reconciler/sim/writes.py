"""Writes: how a create, update or apply becomes the next version of an object.

Every write goes the same way: make the new value, complete it (defaults), record who owns what, let the mutating
webhooks change it, count the generation, validate, ask the validating webhooks, store what changed. A dry run stops
before the last step. An object whose value and
ownership stay the same keeps its resourceVersion: only the times in managedFields would differ, and they do not count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from reconciler.sim import admission, fieldset, merge, ownership, problems
from reconciler.sim.admission import Review, Webhook
from reconciler.sim.complete import bad_base64, complete, zero
from reconciler.sim.fieldset import EMPTY, MEMBER, FieldSet
from reconciler.sim.ownership import Entry, Owner
from reconciler.sim.schema import Catalog, Resource
from reconciler.sim.store import Store, Stored
from reconciler.sim.typed import type_errors
from reconciler.sim.validation import validate
from reconciler.sim.versions import (
    POD_ADMISSION,
    POD_STATUS,
    WITHOUT_GENERATION,
    Object,
    after_webhooks,
    bare,
    entries_of_request,
    generation_changes,
    keep_address,
    keep_times,
    next_metadata,
    same_object,
    unchanged,
    untidy,
    with_entries,
    without_allocations,
    without_revision,
)

STATUS: FieldSet = {"f:status": MEMBER}
NOT_STATUS: FieldSet = {"f:metadata": MEMBER, "f:spec": MEMBER}


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
    """Creates, updates and applies in one store. `now` is the epoch time; `seed` makes uids; `webhooks` may change."""

    def __init__(
        self, store: Store, catalog: Catalog, now: Callable[[], float], seed: str, webhooks: Sequence[Webhook] = ()
    ) -> None:
        self.webhooks = webhooks
        self.store = store
        self.catalog = catalog
        self._now = now
        self._seed = seed

    # ------------------------------------------------------------------------------------------------- plumbing

    def find(self, target: Target) -> Stored | None:
        """The live object."""
        return self.store.shelf(target.resource.storage).objects.get((target.namespace, target.name))

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
        self.store.counter += 1
        source = f"{self._seed}/{purpose}/{self.store.counter}"
        return hashlib.blake2b(source.encode(), digest_size=16).hexdigest()

    def _uid(self) -> str:
        text = self.random("uid")
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"

    def put(
        self,
        target: Target,
        value: Object,
        entries: dict[Owner, Entry],
        dry_run: bool,
        untidy: tuple[str, ...] = (),
    ) -> Stored:
        """Store the next version, unless it is a dry run."""
        metadata = dict(value["metadata"])
        metadata.pop("managedFields", None)
        if entries:
            metadata["managedFields"] = ownership.encode(entries)
        value = {**value, "metadata": metadata}
        if dry_run:
            return Stored(value, int(metadata.get("resourceVersion", "0")), entries)
        return self.store.put(target.resource.storage, target.namespace, target.name, value, entries, untidy)

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
        resource = target.resource
        before = {} if resource.custom else zero(resource.node)
        before["metadata"] = {}
        owner = Owner(options.manager, "Update", resource.api_version)
        sent = without_allocations(value, body) if resource.storage == "/services" else value
        entries = ownership.update(resource.node, before, sent, {}, owner, self.time())
        value, entries = self._admit(target, value, None, entries, options)
        live = self.find(target)
        if live is not None:
            deleting = bool(live.value["metadata"].get("deletionTimestamp"))
            raise problems.already_exists(resource, target.name, deleting=deleting)
        return self.put(target, value, entries, options.dry_run)

    def _namespace_exists(self, target: Target) -> None:
        if not target.resource.namespaced:
            return
        namespace = self.store.shelf("/namespaces").objects.get(("", target.namespace))
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
        """The first version: system fields set, completed."""
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
        # Kind, apiVersion and metadata stand first in every stored object: lists of built-in kinds cut two off.
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
        return value

    def _with_address(self, service: Object) -> Object:
        spec = service["spec"]
        if spec.get("type") == "ExternalName":
            return service
        if not spec.get("clusterIP"):
            self.store.counter += 1
            address = f"10.96.{self.store.counter // 254 % 256}.{self.store.counter % 254 + 1}"
            spec = {**spec, "clusterIP": address}
        return {**service, "spec": {**spec, "clusterIPs": [spec["clusterIP"]]}}

    def _admit(
        self,
        target: Target,
        value: Object,
        live: Stored | None,
        entries: dict[Owner, Entry],
        options: Options,
        *,
        applied: bool = False,
    ) -> tuple[Object, dict[Owner, Entry]]:
        """(value, entries) as all who have a say leave them: webhooks that change, validation, webhooks that refuse."""
        review = self._review("CREATE" if live is None else "UPDATE", target, live, options)
        if self.webhooks:
            shown = with_entries(value, entries)
            after = admission.mutated(self.webhooks, replace(review, object=shown)).object
            if after is not None and after is not shown:
                value, entries = after_webhooks(target.resource, value, after, entries, applied=applied)
        if live is not None and generation_changes(target.resource, live.value, value):
            value = {**value, "metadata": {**value["metadata"], "generation": live.value["metadata"]["generation"] + 1}}
        self._validate(target, value, None if live is None else live.value)
        if self.webhooks:
            admission.validated(self.webhooks, replace(review, object=with_entries(value, entries)))
        return value, entries

    def review_deletion(self, target: Target, live: Stored, options: Options) -> None:
        """Ask the webhooks about a deletion. ApiError when one of them refuses."""
        if self.webhooks:
            review = self._review("DELETE", target, live, options)
            admission.mutated(self.webhooks, review)
            admission.validated(self.webhooks, review)

    @staticmethod
    def _review(operation: str, target: Target, live: Stored | None, options: Options) -> Review:
        resource = target.resource
        namespace = target.name if resource.storage == "/namespaces" else target.namespace
        before = None if live is None else live.value
        plural, subresource = resource.plural, target.subresource
        return Review(operation, plural, subresource, namespace, target.name, None, before, options.dry_run)

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
            known = entries_of_request(sent, known, target.resource)
        # An object that nobody owns anything of (or whose managedFields this write resets) stays so.
        if known:
            entries = ownership.update(
                target.resource.node, live.value, without_revision(value, live), known, owner, self.time()
            )
        value, entries = self._admit(target, value, live, entries, options)
        return self._replace(target, live, value, entries, options)

    def _next_value(self, target: Target, live: Stored, wanted: Object, *, applied: bool = False) -> Object:
        """The wanted object, restricted to what the endpoint may write, completed."""
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
            metadata = next_metadata(old_metadata, wanted.get("metadata") or {})
        value["metadata"] = metadata
        value = complete(target.resource, value, before, applied=applied)
        if target.resource.storage == "/services" and not target.subresource:
            value = keep_address(value, before)
        return value

    def _replace(
        self,
        target: Target,
        live: Stored,
        value: Object,
        entries: dict[Owner, Entry],
        options: Options,
        untidy: tuple[str, ...] = (),
    ) -> Stored:
        """Store the next version, unless it is the live one; remove it when its last finalizer is gone."""
        entries = keep_times(live, value, entries)
        if entries == live.entries and untidy == live.untidy and same_object(live.value, value):
            return live
        metadata = value["metadata"]
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            last = Stored(with_entries(value, entries), live.revision, entries)
            if not options.dry_run:
                self.store.drop(target.resource.storage, target.namespace, target.name)
            return last
        return self.put(target, value, entries, options.dry_run, untidy)

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
        outcome = ownership.apply(resource.node, bare(live), config, entries, owner, force=options.force, reset=reset)
        if outcome.conflicts and not options.force:
            raise problems.ApiError(ownership.conflict_status(outcome.conflicts))
        config_metadata = config.get("metadata") or {}
        expected = config_metadata.get("resourceVersion")
        if expected and expected != str(live.revision):
            raise problems.conflict(resource, target.name, problems.STALE)
        value = self._next_value(target, live, outcome.value, applied=True)
        after = outcome.entries
        if owner in after and not unchanged(live, outcome.value):
            after[owner] = Entry(after[owner].fields, self.time())
        value, after = self._admit(target, value, live, after, options, applied=True)
        return self._replace(target, live, value, after, options, untidy(resource, outcome.value)), False

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
        value, entries = self._admit(target, value, None, entries, options, applied=True)
        return self.put(target, value, entries, options.dry_run, untidy(target.resource, config))

    def _must_be_typed(self, target: Target, config: Object) -> None:
        errors = type_errors(target.resource.node, config)
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
                f"failed to convert new object ({identity}) to proper version: {why}: "
                f"error decoding from json: {undecodable}"
            )
        raise problems.internal(f"failed to create typed patch object ({identity}): {shown}")

    def _before_first_apply(self, target: Target, live: Stored) -> dict[Owner, Entry]:
        """An object without managedFields is given to a manager of its own at its first apply."""
        resource = target.resource
        owner = Owner("before-first-apply", "Update", resource.api_version, target.subresource)
        before = {} if resource.custom else zero(resource.node)
        before["metadata"] = {}
        return ownership.update(resource.node, before, bare(live), {}, owner, self.time())
