"""What the rules of health policies give for live objects, each asked once per policy and version of the object.

Judging looks at an object again and again, for time passes; its rules give the same as long as neither it nor the
policy changes. So outcomes are remembered, those that had to be ended too: they would have to be ended again. A policy
whose rules keep having to be ended is left alone for a while, whatever object it is about, so that a fleet with one
hostile policy does not spend all its time on it.

    evaluations = HealthEvaluations(evaluator)
    await evaluations.outcomes([Asked(policy, digest, live), ...], now.monotonic)      # [Outcome(rule=0, ...), ...]
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from reconciler.core.health_common import metadata_of, text_at
from reconciler.core.health_rules import HealthPolicy, Outcome, outcome_of, request_of
from reconciler.core.model import Manifest, Reason
from reconciler.shell.ports import Evaluator

OUTCOMES_REMEMBERED_MAX = 50_000
POLICIES_REMEMBERED_MAX = 1_000
#: Items of one request, and their bytes together.
BATCH_MAX, BATCH_BYTES_MAX = 256, 4 * 1024 * 1024
#: So often within this time a policy's rules may have to be ended before they are left alone for the rest of it. What
#: had to be ended is believed for as long: it may have been a moment of the machine's.
ENDED_MAX, ENDED_WITHIN_S = 3, 600.0
#: So long an evaluator that does not start is not asked again: each try may take a while.
UNAVAILABLE_S = 30.0
_ENDED = frozenset({"EvaluationTimedOut", "EvaluationCrashed"})
_PASSES = frozenset({"EvaluatorUnavailable", "EvaluationSuspended"})


@dataclass(frozen=True, slots=True)
class Asked:
    """An object, and the policy whose rules are to judge it; `digest` is the policy's."""

    policy: HealthPolicy
    digest: str
    live: Manifest

    @property
    def key(self) -> tuple[str, str, str] | None:
        """Equal for two with the same outcome; None where the object does not tell its version."""
        metadata = metadata_of(self.live)
        uid, version = text_at(metadata, "uid"), text_at(metadata, "resourceVersion")
        return (self.digest, uid, version) if uid and version else None


@dataclass(frozen=True, slots=True)
class _Remembered:
    outcome: Outcome
    until_s: float | None


class HealthEvaluations:
    """Shared by all lanes."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._outcomes: OrderedDict[tuple[str, str, str], _Remembered] = OrderedDict()
        self._ended: OrderedDict[str, deque[float]] = OrderedDict()
        self._unavailable: tuple[float, Reason] | None = None

    async def outcomes(self, asked: Sequence[Asked], now_s: float) -> list[Outcome]:
        """One outcome for each of `asked`, in their order. `now_s` is Now.monotonic."""
        found = [self._known(each, now_s) for each in asked]
        for batch in _batches(asked, found):
            left_alone = self._left_alone(asked[batch[0][0]], now_s)
            if left_alone is None:
                answers = await self._evaluator.evaluate([request for _, request in batch])
                outcomes = [
                    self._take_in(asked[at], answer, now_s) for (at, _), answer in zip(batch, answers, strict=True)
                ]
            else:  # what was ended in the batch before counts for this one
                outcomes = [left_alone for _ in batch]
            for (index, _), outcome in zip(batch, outcomes, strict=True):
                found[index] = outcome
        return [outcome for outcome in found if outcome is not None]

    def _known(self, asked: Asked, now_s: float) -> Outcome | None:
        key = asked.key
        known = self._outcomes.get(key) if key is not None else None
        if known is not None and (known.until_s is None or now_s < known.until_s):
            return known.outcome
        return self._left_alone(asked, now_s)

    def _left_alone(self, asked: Asked, now_s: float) -> Outcome | None:
        """Why its rules are not tried now; None if they may be."""
        if self._unavailable is not None and now_s < self._unavailable[0]:
            return Outcome(error=self._unavailable[1])
        times = self._ended.get(asked.digest)
        if times is None or len(times) < ENDED_MAX or now_s - times[0] >= ENDED_WITHIN_S:
            return None
        message = f"the rules of health policy {asked.policy.name} had to be ended {ENDED_MAX} times: make them simpler"
        return Outcome(error=Reason("EvaluationSuspended", message))

    def _take_in(self, asked: Asked, answer: bytes | Reason, now_s: float) -> Outcome:
        """The outcome that an answer means; it is remembered, and who had to be ended is noted."""
        if isinstance(answer, bytes):
            outcome, until_s = outcome_of(asked.policy, answer), None
        else:
            named = f"the rules of health policy {asked.policy.name}: {answer.message}"
            outcome, until_s = Outcome(error=Reason(answer.code, named)), now_s + ENDED_WITHIN_S
            if answer.code == "EvaluatorUnavailable":
                self._unavailable = (now_s + UNAVAILABLE_S, Reason(answer.code, answer.message))
            if answer.code in _PASSES:
                return outcome
            if answer.code in _ENDED:
                self._ended.setdefault(asked.digest, deque(maxlen=ENDED_MAX)).append(now_s)
                while len(self._ended) > POLICIES_REMEMBERED_MAX:
                    self._ended.popitem(last=False)
        key = asked.key
        if key is not None:
            self._outcomes[key] = _Remembered(outcome, until_s)
            while len(self._outcomes) > OUTCOMES_REMEMBERED_MAX:
                self._outcomes.popitem(last=False)
        return outcome


def _batches(asked: Sequence[Asked], known: Sequence[Outcome | None]) -> Iterator[list[tuple[int, bytes]]]:
    """What is not known yet, in parts that are sent at once: each is of one policy, so that a hostile one holds up
    nothing but itself."""
    by_policy: dict[str, list[int]] = {}
    for index, each in enumerate(asked):
        if known[index] is None:
            by_policy.setdefault(each.digest, []).append(index)
    for indices in by_policy.values():
        batch: list[tuple[int, bytes]] = []
        size = 0
        for index in indices:
            request = request_of(asked[index].policy, asked[index].live)
            if batch and (size + len(request) > BATCH_BYTES_MAX or len(batch) >= BATCH_MAX):
                yield batch
                batch, size = [], 0
            batch.append((index, request))
            size += len(request)
        yield batch


class InlineEvaluator:
    """Evaluator that calls its function where it stands: for the simulator, whose expressions are its own."""

    def __init__(self, function: Callable[[bytes], bytes]) -> None:
        self._function = function

    async def evaluate(self, items: Sequence[bytes]) -> list[bytes | Reason]:
        """See Evaluator.evaluate."""
        return [self._function(item) for item in items]

    async def close(self) -> None:
        """There is nothing to close."""
