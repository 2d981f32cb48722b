"""How far a series is done, where its steps end in any order: up to the first that has not ended.

A watch may be resumed only from an event before which everything is handled, and what is known is current only as of
then. Most events are handled at once; a deletion takes a read, and the next events do not wait for it.

    steps = InOrder()
    deletion, change = steps.begin("7", 1.0), steps.begin("8", 1.1)
    steps.end(change)       # None: "7" is still under way
    steps.end(deletion)     # the step "8": all is done up to there
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(slots=True, eq=False)
class Step:
    """One event: the version to resume from once it and all before it are done, and when it came (Now.monotonic)."""

    version: str
    at_s: float
    ended: bool = False


@dataclass(slots=True)
class InOrder:
    """The steps that are not settled, the oldest first. Of those that ended in a row only the newest is kept: it holds
    at most two for each that is under way."""

    _steps: list[Step] = field(default_factory=list)

    def begin(self, version: str, at_s: float) -> Step:
        """A step that comes after all others."""
        step = Step(version, at_s)
        self._steps.append(step)
        return step

    def end(self, step: Step) -> Step | None:
        """`step` is done. The newest up to which all are, None where that is not further than before."""
        step.ended = True
        older = [one for one, after in pairwise(self._steps) if not (one.ended and after.ended)]
        self._steps = [*older, self._steps[-1]]
        return self._steps.pop(0) if self._steps[0].ended else None

    def __len__(self) -> int:
        return len(self._steps)
