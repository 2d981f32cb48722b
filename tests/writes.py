"""The writes of a cluster, as far as judging asks about them: there are those that a test says there are."""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler.core.model import Target
from reconciler.shell.limiter import Limiter, WriteLimits


def plenty() -> WriteLimits:
    """Limits that nothing reaches."""
    return WriteLimits(Limiter(1000.0, 1000.0), Limiter(1000.0, 1000.0))


@dataclass
class FakeWrites:
    """As Performing: `pending` are targets with writes to come, `unsettled` those that are being written."""

    limits: WriteLimits = field(default_factory=plenty)
    pending: set[Target] = field(default_factory=set)
    unsettled: set[Target] = field(default_factory=set)

    def is_pending(self, target: Target) -> bool:
        """As Performing.is_pending."""
        return target in self.pending

    def is_unsettled(self, target: Target) -> bool:
        """As Performing.is_unsettled."""
        return target in self.unsettled
