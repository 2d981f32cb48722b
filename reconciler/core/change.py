"""What moving one target from release to release amounts to: the worst class, effect and loss among its objects.

change_of(target, before, after)   ->  Change(target, ..., change_class="upgrade", effect="restart", state="lost")
"""

from __future__ import annotations

from reconciler.core.decide_source import STATEFUL_KINDS
from reconciler.core.flink_effect import ChangeClass, Effect, State
from reconciler.core.model import Release, Target
from reconciler.core.plan_diff import release_diff
from reconciler.core.waves import Change

_CLASSES = list(ChangeClass)
_EFFECTS = list(Effect)
_STATES = list(State)


def change_of(target: Target, before: Release | None, after: Release) -> Change:
    """The change of `target` from `before` (None: nothing is there yet) to `after`, as a plan counts it."""
    parts = release_diff(before.objects if before is not None else (), after.objects, target=target)
    classes = [part.effect.change_class for part in parts if part.effect.change_class is not None]
    return Change(
        target,
        before.digest if before is not None else None,
        after.digest,
        change_class=str(max(classes, key=_CLASSES.index)) if classes else "",
        effect=str(max((part.effect.effect for part in parts), key=_EFFECTS.index, default=Effect.NONE)),
        state=str(max((part.effect.state for part in parts), key=_STATES.index, default=State.NONE)),
        deletes=sum(part.action == "delete" and part.key.kind in STATEFUL_KINDS for part in parts),
    )
