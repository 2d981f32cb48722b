"""What happens between a read and the write that follows it."""

from __future__ import annotations

from typing import Any

from reconciler.core.model import Manifest, ObjectKey
from reconciler.shell.kube_cluster import KubeCluster


class NotThereYet:
    """A cluster that was asked first before somebody else made the object."""

    def __init__(self, kube: KubeCluster) -> None:
        self._kube = kube
        self._asked = False

    async def get(self, version: str, key: ObjectKey) -> Manifest | None:
        """Nothing the first time, then what is there."""
        if self._asked:
            return await self._kube.get(version, key)
        self._asked = True
        return None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kube, name)
