"""What one cluster has told us: the cache of live objects, when it was last heard, and reading one object now.

Everything that a cluster answers passes through here, from watches, lists, reads and the lane's own writes alike, so
that there is one place that decides what is news and one that knows whether the cluster is there.

    mirror.take([manifest])                                     # an answer; on_change((key,)) if it was news
    await mirror.read("v1", ObjectKey("", "ConfigMap", "a", "b"))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from reconciler.core.model import Manifest, ObjectKey, Reason
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_errors import BusyError, KubeError
from reconciler.shell.live import LiveCache, NotSeen
from reconciler.shell.metrics import Metrics
from reconciler.shell.ports import Clock

READS_AGAIN_MAX = 3


class Mirror:
    """The state that a cluster's watches, lists and reads share."""

    def __init__(
        self,
        cluster: KubeCluster,
        clock: Clock,
        on_change: Callable[[Sequence[ObjectKey]], None],
        on_heard: Callable[[], None],
        metrics: Metrics | None = None,
    ) -> None:
        self.metrics = metrics
        self.cluster = cluster
        self.cache = LiveCache()
        self.heard_at: float | None = None
        self.reason: Reason | None = None
        self._clock = clock
        self._on_change = on_change
        self._on_heard = on_heard
        self._working = 0

    @property
    def busy(self) -> bool:
        """Something is being asked or handled."""
        return self._working > 0

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Count as busy inside."""
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1

    def heard(self) -> None:
        """The cluster answered, or an event arrived."""
        self.heard_at = self._clock.now().monotonic
        self.reason = None
        self._on_heard()

    def failed(self, error: KubeError) -> None:
        """A request failed. A refusal is an answer, too: it comes from one who knows. Silence, a proxy's error page, a
        server that fails or has no time for us tell nothing of what is there."""
        told = error.answered and error.status < 500 and not isinstance(error, BusyError)
        if error.permanent or told:
            self.heard()
        else:
            self.reason = error.reason

    def take(self, manifests: Iterable[Manifest]) -> None:
        """Take in objects as the cluster sent them."""
        now_s = self._clock.now().monotonic
        changed = tuple(ObjectKey.of(manifest) for manifest in manifests if self.cache.offer(manifest, now_s))
        if changed:
            self._on_change(changed)

    def gone(self, key: ObjectKey, resource_version: str = "") -> None:
        """Take in that `key` is confirmed to be absent; `resource_version` is that of its deletion, where known."""
        if self.cache.absent(key, self._clock.now().monotonic, resource_version):
            self._on_change((key,))

    async def read(self, api_version: str, key: ObjectKey) -> Manifest | None:
        """Ask for `key` now, take the answer in, and return the newest that is known. Raises KubeError."""
        with self.at_work():
            for _ in range(READS_AGAIN_MAX):
                before = self.cache.entry(key)
                try:
                    found = await self.cluster.get(api_version, key)
                except KubeError as error:
                    self.failed(error)
                    raise
                self.heard()
                if found is not None:
                    self.take([found])
                    break
                # An absence has no version. If something was learned while the answer was on its way, it may be older
                # than that, so it is asked for again.
                if self.cache.entry(key) is before:
                    self.gone(key)
                    break
        live = self.cache.live(key)
        return None if isinstance(live, NotSeen) else live
