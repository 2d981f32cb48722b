"""Kubernetes Events as the models of the controllers write them.

name, document = event_document(ref, value, ("Warning", "ValidationError", "..."), "flink-kubernetes-operator", wall)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from reconciler.sim.controllers import rfc3339
from reconciler.sim.machine import Ref


def event_document(
    ref: Ref, value: Mapping[str, Any], said: tuple[str, str, str], manager: str, wall_s: float
) -> tuple[str, dict[str, Any]]:
    """A Kubernetes Event about `value`, and its name: the same for the same words about the same generation. `said` is
    its type, reason and message."""
    metadata = value["metadata"]
    kind, reason, message = said
    now = rfc3339(wall_s)
    name_of = "/".join(map(str, (metadata["uid"], metadata.get("generation"), reason, message)))
    name = f"{ref.name}.{hashlib.blake2b(name_of.encode(), digest_size=8).hexdigest()}"
    involved = {"apiVersion": value["apiVersion"], "kind": ref.kind, "namespace": ref.namespace, "name": ref.name}
    involved |= {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
    return name, {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": ref.namespace},
        "involvedObject": involved,
        "type": kind,
        "reason": reason,
        "message": message,
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "source": {"component": manager},
    }
