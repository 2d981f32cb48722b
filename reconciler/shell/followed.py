"""Which kinds the targets of one cluster consist of, kept up as targets come, change and go.

followed.put(target, declared={Kind("v1", "ConfigMap")}, owned={Kind("v1beta1", "Old")})
followed.kinds()        # what the observer is to follow
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set

from reconciler.core.model import Target
from reconciler.shell.follow import Kind
from reconciler.shell.live import GroupKind

_NONE: frozenset[Kind] = frozenset()


class Followed:
    """Counts by kind. What is `declared` stands in an assigned release; what is `owned` only in the inventory, where an
    older release left it: at that version it is followed unless some release declares the kind."""

    def __init__(self) -> None:
        self._of_target: dict[Target, tuple[frozenset[Kind], frozenset[Kind]]] = {}
        self._declared: Counter[Kind] = Counter()
        self._owned: Counter[Kind] = Counter()
        #: Another number whenever `declared` may say something else of some target.
        self.version = 0
        #: Targets have few different sets of kinds: each is kept once, with its kinds whatever their version.
        self._sets: dict[frozenset[Kind], tuple[frozenset[Kind], tuple[GroupKind, ...]]] = {}

    def put(self, target: Target, declared: Set[Kind] = _NONE, owned: Set[Kind] = _NONE) -> None:
        """`target` consists of these now; of nothing: forget it."""
        before = self._of_target.pop(target, (_NONE, _NONE))
        after = (self._shared(declared)[0], self._shared(owned)[0])
        if before != after:
            self.version += 1
            for counter, less, more in zip((self._declared, self._owned), before, after, strict=True):
                counter.update(more)
                counter.subtract(less)
                for kind in less - more:
                    if not counter[kind]:
                        del counter[kind]
        if declared or owned:
            self._of_target[target] = after

    def declared(self, target: Target) -> tuple[GroupKind, ...]:
        """The kinds of what is assigned to `target`, sorted."""
        return self._shared(self._of_target.get(target, (_NONE, _NONE))[0])[1]

    def kinds(self) -> set[Kind]:
        """All kinds to follow."""
        declared = {kind.group_kind for kind in self._declared}
        return set(self._declared) | {kind for kind in self._owned if kind.group_kind not in declared}

    def _shared(self, kinds: Set[Kind]) -> tuple[frozenset[Kind], tuple[GroupKind, ...]]:
        frozen = frozenset(kinds)
        found = self._sets.get(frozen)
        if found is None:
            found = self._sets[frozen] = (frozen, tuple(sorted({kind.group_kind for kind in frozen})))
        return found
