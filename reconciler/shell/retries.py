"""When the writes of a lane's targets are tried again, and why not now.

A target that must wait does not hold up the others, but for reasons that hold for everything the lane would write. What
was sent and got no answer leaves its target in doubt: nothing is known there before it is read again. One that took
long and came to nothing is slow: it holds a place that others could have.

    retries.put_off(target, later, now)
    retries.ready(target, now)          # False until then
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass

from reconciler.core.model import IntentResult, IntentState, Now, Reason, Target
from reconciler.shell.perform import Later

RETRY_START_S = 1.0
RETRY_MAX_S = 60.0
#: Reasons to wait that are given before anything is sent.
NOT_SENT = frozenset({"WriteLimit", "Abandoned", "NamespaceNotActive", "DefinitionNotEstablished"})
#: Reasons that hold for everything the lane would write: asking again for each target is work, and news to nobody.
WHOLE_LANE = frozenset({"WriteLimit", "TooManyRequests"})
#: Refusals that may pass by themselves: an API server that has just started answers before it has read the role
#: bindings, and what is granted is known to each of several servers a moment later.
DOUBTED = frozenset({"Forbidden", "ImpersonationForbidden"})
#: How often in a row one of them is heard before it is believed: 15 s with the pauses between.
DOUBTED_TIMES = 5


@dataclass(frozen=True, slots=True)
class Retry:
    """After `failures` attempts the target is tried again at `at_s` (Now.monotonic)."""

    failures: int
    at_s: float
    reason: Reason


class Retries:
    """The waits of one lane, by target."""

    def __init__(self) -> None:
        self._waits: dict[Target, Retry] = {}
        self._in_doubt: set[Target] = set()
        self._slow: set[Target] = set()
        self._heard: dict[Target, int] = {}  # how often in a row a refusal that may pass by itself

    def of(self, target: Target) -> Retry | None:
        """Why the writes of `target` wait, and until when; None if they do not."""
        return self._waits.get(target)

    def ready(self, target: Target, now: Now) -> bool:
        """True if nothing keeps the target waiting any more."""
        wait = self._waits.get(target)
        return wait is None or wait.at_s <= now.monotonic

    def times(self) -> list[float]:
        """When to look again, by target."""
        return [wait.at_s for wait in self._waits.values()]

    def in_doubt(self, target: Target) -> bool:
        """True if something may have been sent there and nobody knows what came of it."""
        return target in self._in_doubt

    def is_slow(self, target: Target) -> bool:
        """True if its last attempt took long and came to nothing."""
        return target in self._slow

    def believed(self, target: Target, outcome: IntentResult | Later) -> IntentResult | Later:
        """`outcome`, or a later try where it is a refusal that was not heard often enough to be believed."""
        heard = self._heard.pop(target, 0) + 1
        if isinstance(outcome, Later):
            if outcome.reason.code in NOT_SENT:
                self._heard[target] = heard - 1
            return outcome
        reason = outcome.reason
        refused = outcome.state is IntentState.FAILED and reason is not None and reason.code in DOUBTED
        if reason is None or not refused or heard >= DOUBTED_TIMES:
            return outcome
        self._heard[target] = heard
        return Later(reason)

    def due_since(self, target: Target) -> float:
        """Since when it may be tried: Now.monotonic, 0 if it does not wait."""
        wait = self._waits.get(target)
        return wait.at_s if wait is not None else 0.0

    def done(self, target: Target) -> None:
        """The target's writes were carried out."""
        self._waits.pop(target, None)
        self._in_doubt.discard(target)
        self._slow.discard(target)
        self._heard.pop(target, None)

    def clear(self) -> None:
        """Everything may be tried again now, and nothing is slow on a cluster that is back; what is in doubt stays
        so."""
        self._waits.clear()
        self._slow.clear()
        self._heard.clear()

    def keep(self, pending: Callable[[Target], bool], assigned: Container[Target]) -> None:
        """Forget targets that have nothing `pending`, and doubts about those that are not `assigned` anything."""
        self._waits = {target: wait for target, wait in self._waits.items() if pending(target)}
        self._heard = {target: times for target, times in self._heard.items() if pending(target)}
        self._in_doubt = {target for target in self._in_doubt if target in assigned}
        self._slow = {target for target in self._slow if target in assigned}

    def put_off(self, target: Target, later: Later, now: Now, *, slow: bool = False) -> None:
        """Try `target` later, after ever longer pauses while it fails. `slow`: to learn that took long."""
        previous = self._waits.get(target)
        counted = later.reason.code not in NOT_SENT
        failures = (previous.failures if previous is not None else 0) + counted
        delay_s = min(RETRY_START_S * 2 ** min(max(failures - 1, 0), 10), RETRY_MAX_S)
        if later.after_s is not None:
            delay_s = max(later.after_s, delay_s) if counted else later.after_s
        if counted:
            self._in_doubt.add(target)
            (self._slow.add if slow else self._slow.discard)(target)
        self._waits[target] = Retry(failures, now.monotonic + delay_s, later.reason)

    def put_off_all(self, first: Target, targets: Iterable[Target], later: Later) -> None:
        """The cluster does not answer, or takes no more for now, as `first` was told: none of `targets` is tried before
        that is."""
        at_s = self._waits[first].at_s
        for target in targets:
            known = self._waits.get(target)
            if known is None or known.at_s < at_s:
                self._waits[target] = Retry(known.failures if known else 0, at_s, later.reason)
