"""Adoption: taking over an object that exists and is not ours, without losing or doubling anything.

Whoever made it left a record of what it had set. If we only applied over it, what the old tool had set and Git does not
declare would stay for ever, owned by nobody who still runs. So the records of tools that only act when they are called
are folded into ours by one guarded write, and the apply that follows removes what Git does not declare. What somebody
else still looks after is never taken: two reconcilers would undo each other's work for ever. And what is not taken over
keeps its record: the server is asked by a dry-run, before anything is written, who would hold our fields.

    refusal(live, "ifUnowned", owner)     # None, or why not
    folded(live, "apps/v1")               # the new managedFields, None if there is nothing to fold
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from reconciler.core.health_common import metadata_of
from reconciler.core.managed_fields import FIELD_MANAGER, FieldsV1, entries_of
from reconciler.core.model import Manifest, ObjectKey, Reason
from reconciler.core.ownership import APPLICATION_ANNOTATION, OWNER_LABEL
from reconciler.core.values import clean_text

#: Managers of tools that write when somebody calls them, or that no longer look after an object without their mark.
FOLDED = frozenset(
    {
        "kubectl", "kubectl-client-side-apply", "kubectl-create", "kubectl-edit", "kubectl-patch", "kubectl-replace",
        "kubectl-label", "kubectl-annotate", "kubectl-scale", "kubectl-set", "kubectl-last-applied",
        "before-first-apply", "helm", "Helm",
        "argocd-controller", "argocd-application-controller", "kustomize-controller", "helm-controller",
    }
)  # fmt: skip

#: The marks of others that go on looking after an object: (labels or annotations, name, whose it is).
_MARKS: tuple[tuple[str, str, str], ...] = (
    ("annotations", "argocd.argoproj.io/tracking-id", "Argo CD"),
    ("labels", "argocd.argoproj.io/instance", "Argo CD"),
    ("labels", "kustomize.toolkit.fluxcd.io/name", "Flux"),
    ("labels", "helm.toolkit.fluxcd.io/name", "Flux"),
    ("annotations", "objectset.rio.cattle.io/id", "Fleet"),
    ("labels", "kapp.k14s.io/app", "kapp"),
    ("labels", "app.oam.dev/name", "KubeVela"),
    ("annotations", "configmanagement.gke.io/managed", "Config Sync"),
)
#: Helm writes only when somebody calls it, but it goes by this mark: taking it over is asked for by name.
_HELM = ("annotations", "meta.helm.sh/release-name")


def refusal(live: Manifest, adopt: str, owner: str) -> Reason | None:
    """Why `live`, which is not ours, is not taken over under the rule `adopt`; None if it is. `owner` is our mark."""
    key, metadata = ObjectKey.of(live), metadata_of(live)
    if adopt == "never":
        hint = "remove it, rename ours, or let the policy apply say adopt: ifUnowned"
        return Reason("NotOwned", f"{key} exists and is not ours{_made_by(live)}: {hint}")
    for reference in metadata.get("ownerReferences") or ():
        if isinstance(reference, Mapping) and reference.get("controller"):
            whose = clean_text(f"{reference.get('kind')} {reference.get('name')}", 120)
            return Reason("OwnedByOther", f"{key} belongs to {whose}, which would make it anew")
    mark = _text(metadata, "labels", OWNER_LABEL)
    if mark and mark != owner:
        whose = _text(metadata, "annotations", APPLICATION_ANNOTATION) or "another installation"
        return Reason("OwnedByOther", f"{key} is marked as an object of {whose}: it is not taken from there")
    for where, name, tool in _MARKS:
        if _text(metadata, where, name):
            message = f"{key} carries {name}, the mark of {tool}: let it go there first, then remove the mark"
            return Reason("OwnedByOther", message)
    release = _text(metadata, *_HELM)
    if release and adopt != "force":
        message = f"{key} belongs to the Helm release {release}: adopt: force takes it over"
        return Reason("OwnedByOther", message)
    return None


def _text(metadata: Mapping[str, Any], where: str, name: str) -> str:
    values = metadata.get(where)
    return clean_text(values.get(name) or "", 120) if isinstance(values, Mapping) else ""


def _made_by(live: Manifest) -> str:
    managers = sorted({clean_text(entry.get("manager"), 60) for entry in entries_of(live) if entry.get("manager")})
    return f" (written by {', '.join(managers[:3])})" if managers else ""


def folded(live: Manifest, api_version: str, manager: str = FIELD_MANAGER) -> list[dict[str, Any]] | None:
    """managedFields with what the FOLDED managers own given to ours, as one Apply entry of `api_version`; None if none
    of them owns anything there. Entries of other versions stay: their paths are those of another schema."""
    ours: FieldsV1 = {}
    kept: list[dict[str, Any]] = []
    found = False
    for entry in entries_of(live):
        mine = entry.get("manager") == manager and entry.get("operation") == "Apply"
        whole = not entry.get("subresource") and entry.get("apiVersion") == api_version
        if whole and isinstance(entry.get("fieldsV1"), dict) and (mine or entry.get("manager") in FOLDED):
            ours = _union(ours, entry["fieldsV1"])
            found = found or not mine
        else:
            kept.append(entry)
    if not found:
        return None
    fields = {name: below for name, below in ours.items() if name != "f:status"}
    entry = {
        "manager": manager,
        "operation": "Apply",
        "apiVersion": api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }
    return [entry, *kept]


def unfolded_conflicts(
    conflicts: Iterable[tuple[str, str]], fields: Iterable[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """Those of `conflicts` (manager, field path) that are left with the record `fields`: a manager that is folded, and
    has no other entry there, holds nothing any more."""
    left = {str(entry.get("manager")) for entry in fields}
    return [each for each in conflicts if each[0] in left or each[0] not in FOLDED]


def _union(one: FieldsV1, other: FieldsV1) -> FieldsV1:
    merged = dict(one)
    for name, below in other.items():
        merged[name] = _union(merged[name], below) if name in merged else below
    return merged
