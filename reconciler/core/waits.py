"""What an object has to be before the next one of its target is written, and how long one that goes may take.

not_ready(namespace)                   # None, or Reason("NamespaceNotActive", ...)
finalizers_hold(live, now_wall)        # None, or Reason("FinalizersHold", ...) once the deadline has passed
"""

from __future__ import annotations

from reconciler.core.health_common import map_at, metadata_of, text_at, time_s
from reconciler.core.model import Manifest, ObjectKey, Reason
from reconciler.core.values import clean_text

#: After so long people are told that finalizers hold an object: whoever is to run them does not.
FINALIZERS_DEADLINE_S = 600.0
#: The reasons of an object that is being deleted, before that and after it.
GOING_CODES = frozenset({"Deleting", "FinalizersHold"})


def not_ready(live: Manifest) -> Reason | None:
    """Why nothing that comes after `live` is written yet; None if it may be."""
    key = ObjectKey.of(live)
    if (key.group, key.kind) == ("", "Namespace"):
        phase = text_at(map_at(live, "status"), "phase")
        if phase not in ("", "Active"):
            return Reason("NamespaceNotActive", f"namespace {key.name} is {clean_text(phase, 40)}")
    if (key.group, key.kind) == ("apiextensions.k8s.io", "CustomResourceDefinition"):
        conditions = map_at(live, "status").get("conditions")
        found = [each for each in conditions if isinstance(each, dict)] if isinstance(conditions, list) else []
        if not any(each.get("type") == "Established" and each.get("status") == "True" for each in found):
            refused = next((each for each in found if each.get("type") == "NamesAccepted"), {})
            why = f": {clean_text(refused.get('message') or '')}" if refused.get("status") == "False" else ""
            return Reason("DefinitionNotEstablished", f"{key.name} is not served yet{why}")
    return None


def finalizers_hold(live: Manifest, now_wall: float) -> Reason | None:
    """Who holds an object that is being deleted for longer than the deadline; None before that."""
    metadata = metadata_of(live)
    since = time_s(metadata.get("deletionTimestamp"))
    if since is None or now_wall - since < FINALIZERS_DEADLINE_S:
        return None
    names = [clean_text(name, 120) for name in metadata.get("finalizers") or () if isinstance(name, str)]
    who = f"held by {', '.join(names[:8])}" if names else "and not gone"
    message = (
        f"{ObjectKey.of(live)} is being deleted since {clean_text(metadata.get('deletionTimestamp'), 40)}, {who}: "
        "whoever runs that has to let it go, finalizers are never removed here"
    )
    return Reason("FinalizersHold", message)
