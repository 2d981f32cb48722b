"""Is there a way back from a release to the one that baked before it?

Going back applies the baked release as it was declared. Where both of them name a `savepointRedeployNonce`, and not the
same, the operator would take that for an order: it cancels the job without a savepoint and starts it from the savepoint
that was named back then, and everything since is lost. Such a release has no automatic way back; a person restores it.

    nonce 1 -> nonce 2 fails: the rollout halts, NeedsRestore
"""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.core.flink_config import is_flink
from reconciler.core.health_common import map_at
from reconciler.core.model import Manifest, ObjectKey

NONCE = "savepointRedeployNonce"


def no_way_back(release: Sequence[Manifest], baked: Sequence[Manifest]) -> str:
    """Which field of `release` keeps its targets from going back to `baked`, for people; "" if none does. A nonce that
    is taken away orders nothing."""
    before = {ObjectKey.of(manifest): manifest for manifest in baked if is_flink(manifest)}
    for manifest in release:
        key = ObjectKey.of(manifest)
        earlier = map_at(before[key], "spec", "job").get(NONCE) if key in before else None
        if earlier is not None and earlier != map_at(manifest, "spec", "job").get(NONCE):
            return f"spec.job.{NONCE} of {key}"
    return ""
