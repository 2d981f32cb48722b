"""A cluster as one source writes to it.

Two repositories may have applications on one cluster, so one lane writes in two names: the identity goes with what is
written and not with the connection. Reads stay the daemon's own.

    await cluster.acting_for("payments").apply(manifest, uid=None, force=False, dry_run=False)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reconciler.core.model import Manifest, ObjectKey
from reconciler.shell.identity import Identity

if TYPE_CHECKING:
    from reconciler.shell.kube_cluster import KubeCluster


@dataclass(frozen=True, slots=True)
class ActingCluster:
    """A cluster as one source writes to it: it reads as the daemon, and writes and tries as `identity`, which may be
    None for the daemon's own. Raises KubeError and nothing else."""

    cluster: KubeCluster
    identity: Identity | None

    async def get(self, api_version: str, key: ObjectKey) -> Manifest | None:
        """As KubeCluster.get."""
        return await self.cluster.get(api_version, key)

    async def apply(
        self, manifest: Manifest, *, uid: str | None, force: bool, dry_run: bool, resource_version: str | None = None
    ) -> Manifest:
        """As KubeCluster.apply."""
        return await self.cluster.apply(
            manifest,
            uid=uid,
            force=force,
            dry_run=dry_run,
            resource_version=resource_version,
            identity=self.identity,
        )

    async def set_managed_fields(
        self, api_version: str, key: ObjectKey, fields: list[dict[str, Any]], *, uid: str, resource_version: str
    ) -> Manifest:
        """As KubeCluster.set_managed_fields."""
        return await self.cluster.set_managed_fields(
            api_version, key, fields, uid=uid, resource_version=resource_version, identity=self.identity
        )

    async def schema_digest(self) -> str:
        """As KubeCluster.schema_digest."""
        return await self.cluster.schema_digest()

    async def delete(self, api_version: str, key: ObjectKey, uid: str, propagation: str = "Background") -> bool:
        """As KubeCluster.delete."""
        return await self.cluster.delete(api_version, key, uid, propagation, identity=self.identity)
