"""Moves that are no update: a job that keeps its name and changes its namespace.

To a cluster these are two objects. Applied as any other change, the new job would start while the old one still runs:
two copies of a stateful job read and write the same things. Stopping the first one with a snapshot needs more than a
write, so until that is done here such a change is refused, with both places named.

    moved_job(before.objects, after.objects)    # "FlinkDeployment orders from namespace shop to payments", or ""
"""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.core.flink_config import FLINK_GROUP
from reconciler.core.model import Manifest, ObjectKey

#: Kinds of which two copies must never run.
SINGLE_KINDS = frozenset(
    {(FLINK_GROUP, "FlinkDeployment"), (FLINK_GROUP, "FlinkSessionJob"), ("apps", "StatefulSet")}
)  # fmt: skip


def moved_job(before: Iterable[Manifest], after: Iterable[Manifest]) -> str:
    """The first job that leaves one namespace and appears in another, "" if there is none."""
    old = {ObjectKey.of(manifest) for manifest in before}
    new = {ObjectKey.of(manifest) for manifest in after}
    for key in sorted(new - old):
        if (key.group, key.kind) not in SINGLE_KINDS:
            continue
        for left in sorted(old - new):
            if (left.group, left.kind, left.name) == (key.group, key.kind, key.name):
                return f"{key.kind} {key.name} from namespace {left.namespace} to {key.namespace}"
    return ""


def refusal(moved: str) -> str:
    """Why the move is not made, as a sentence."""
    return (
        f"{moved}: two copies would run, and moving a job with its state (stop, snapshot, start) is not done by this "
        "version. Give the new one another name and stop the old one first, or keep the namespace"
    )
