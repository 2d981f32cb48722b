"""Judging: live objects against the assigned releases, as they change.

A lane's memory of what is assigned, what the inventory says and what each object looked like, and the pure judgement in
between. Only what changed is judged again; what is not healthy is judged by time as well, for thresholds pass without
an event. Where only the server can tell whether two objects are equal, it is asked once per (uid, content, release,
rules, schema). That is so, too, where live differs and nobody has edited it: a webhook may have changed what we
applied, as it would at every apply.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from reconciler.core.apply_rules import ObjectRule
from reconciler.core.as_sent import as_sent
from reconciler.core.diff import content_digest, same_after_dry_run
from reconciler.core.digest import digest_of
from reconciler.core.explain_diff import Change
from reconciler.core.health import Custom, Thresholds
from reconciler.core.health_rules import NO_POLICIES, NOT_EVALUATED, HealthPolicies
from reconciler.core.judge import Answer, Seen, differs_unedited, is_disabled, judge, judge_target
from reconciler.core.model import (
    Facts,
    Health,
    InventoryItem,
    Manifest,
    Now,
    ObjectKey,
    ObjectVerdict,
    Reason,
    Sync,
    Target,
    TargetVerdict,
)
from reconciler.core.plan_diff import changed_by
from reconciler.shell.evaluation import Asked, HealthEvaluations
from reconciler.shell.kube_acting import ActingCluster
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_errors import ForbiddenError, KubeError
from reconciler.shell.limiter import WriteLimits
from reconciler.shell.live import GroupKind, NotSeen
from reconciler.shell.observe import Observer
from reconciler.shell.releases import SentRelease

DRY_RUNS_REMEMBERED_MAX = 10_000
ANSWER_LIFETIME_S = 6 * 3600.0
#: A right that is missing may be granted at any time, and a server that has just started knows none yet.
FORBIDDEN_LIFETIME_S = 300.0
#: Judging waits for the server's answers. One that does not answer is not asked again for so many times as long.
ASKING_PAUSE = 5.0
#: Targets that are judged before anything else has its turn, and before the first of them is published.
JUDGED_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class _Remembered:
    """What the server said, and until when (Now.monotonic) it is believed."""

    answer: Answer
    until_s: float


class Writes(Protocol):
    """What judging has to know of the writes of its cluster."""

    limits: WriteLimits

    def is_pending(self, target: Target) -> bool:
        """True if something is still to be written there."""
        ...

    def is_unsettled(self, target: Target) -> bool:
        """True while it is being written, or was and that is not known here yet."""
        ...


@dataclass(frozen=True, slots=True)
class Judged:
    """The outcome of one round: verdicts of targets that were judged, facts that changed, targets no longer assigned,
    and the moments (Now.monotonic) at which to judge again."""

    verdicts: list[TargetVerdict] = field(default_factory=list)
    facts: list[tuple[Target, ObjectKey, Facts]] = field(default_factory=list)
    dropped: list[Target] = field(default_factory=list)
    rechecks: list[float] = field(default_factory=list)


class _Evaluated(NamedTuple):
    """A live object, and what the rules of its health policy gave for it."""

    live: Manifest
    custom: Custom


class Judging:
    """The judgement of one cluster's targets."""

    def __init__(self, thresholds: Thresholds, check_interval_s: float, evaluations: HealthEvaluations) -> None:
        self._thresholds = thresholds
        self._evaluations = evaluations
        self._policies: dict[Target, HealthPolicies] = {}
        self._check_interval_s = check_interval_s
        self._sent: dict[Target, SentRelease] = {}
        self._target_of: dict[ObjectKey, Target] = {}
        self._items: dict[Target, Mapping[ObjectKey, InventoryItem]] = {}
        self._facts: dict[tuple[Target, ObjectKey], Facts] = {}
        self._dirty: set[Target] = set()
        self._unwell: dict[Target, float] = {}
        self._dropped: set[Target] = set()
        self._answers: dict[tuple[str, ...], _Remembered] = {}
        self._server_says: dict[tuple[Target, ObjectKey], tuple[Change, ...]] = {}
        self._wall_at_zero_s: float | None = None
        self._judged_last: Target | None = None
        self._may_ask = True  # in this round: one refusal is enough, and one silence
        self._ask_from_s = 0.0  # on the loop's clock

    def load(self, facts: dict[tuple[Target, ObjectKey], Facts]) -> None:
        """Take in the facts that an earlier boot stored."""
        self._facts = dict(facts)

    def mark(self, keys: Sequence[ObjectKey]) -> None:
        """These live objects changed."""
        for key in keys:
            target = self._target_of.get(key)
            if target is not None:
                self._dirty.add(target)

    def mark_target(self, target: Target) -> None:
        """What is assigned to, or known of, `target` changed."""
        self._dirty.add(target)

    def server_says(self, target: Target, key: ObjectKey) -> tuple[Change, ...]:
        """What an apply would change on an object of which only the server could tell; () if nothing, or not asked."""
        return self._server_says.get((target, key), ())

    def is_due(self, target: Target) -> bool:
        """True if something about `target` changed that is not judged yet: its verdict is not getting any fresher."""
        return target in self._dirty

    def assign(
        self, target: Target, sent: SentRelease, items: Mapping[ObjectKey, InventoryItem], policies: HealthPolicies
    ) -> None:
        """`target` is to have `sent` now, `items` is its inventory, and `policies` are the health policies of its
        source. Facts of another release do not count against this one."""
        known = self._sent.get(target)
        if known is None or known.identity != sent.identity:
            for key in known.objects if known is not None else ():
                if self._target_of.get(key) == target:
                    del self._target_of[key]
                if known is not None and known.digest != sent.digest:
                    self._facts.pop((target, key), None)
            self._sent[target] = sent
            for key in sent.objects:
                self._target_of[key] = target
            self._dirty.add(target)
            self._dropped.discard(target)
        if self._items.get(target) != items:
            self._items[target] = items
            self._dirty.add(target)
        if self._policies.get(target, NO_POLICIES) != policies:
            self._policies[target] = policies
            self._dirty.add(target)

    def drop(self, target: Target) -> None:
        """`target` is assigned nothing any more: forget it."""
        known = self._sent.pop(target, None)
        if known is None:
            return
        for key in known.objects:
            if self._target_of.get(key) == target:
                del self._target_of[key]
            self._server_says.pop((target, key), None)
            self._facts.pop((target, key), None)
        self._items.pop(target, None)
        self._policies.pop(target, None)
        self._unwell.pop(target, None)
        self._dirty.discard(target)
        self._dropped.add(target)

    async def judge(self, observer: Observer, kube: KubeCluster, writes: Writes, now: Now) -> Judged:
        """Judge what is due, but for what is being written; of many some, and the others in the next round. Asking the
        server is counted against the write limits, for it costs as much."""
        if self._wall_at_zero_s is None:
            self._wall_at_zero_s = now.wall - now.monotonic
        judged = Judged(dropped=sorted(self._dropped))
        self._dropped.clear()
        due = {target for target, at_s in self._unwell.items() if at_s <= now.monotonic}
        found = (target for target in self._dirty | due if target in self._sent and not writes.is_unsettled(target))
        targets = sorted(found)
        self._may_ask = asyncio.get_running_loop().time() >= self._ask_from_s
        if len(targets) > JUDGED_AT_ONCE:
            # Each has its turn, however often those before it are due again.
            start = bisect.bisect_right(targets, self._judged_last) if self._judged_last is not None else 0
            targets = [*targets[start:], *targets[:start]][:JUDGED_AT_ONCE]
            self._judged_last = targets[-1]
            judged.rechecks.append(now.monotonic)
        asked = [each for target in targets for _, each in self._asked(target, observer)]
        await self._evaluations.outcomes(asked, now.monotonic)  # all at once; below it is known
        for target in targets:
            self._dirty.discard(target)
            self._unwell.pop(target, None)
            verdict, recheck = await self._judge_target(target, observer, kube, writes, now, judged)
            if verdict is not None:
                judged.verdicts.append(verdict)
            if recheck:
                self._unwell[target] = now.monotonic + self._check_interval_s
        # What is due and being written is judged when that ends.
        judged.rechecks.extend(at_s for at_s in self._unwell.values() if at_s > now.monotonic)
        return judged

    async def _judge_target(
        self,
        target: Target,
        observer: Observer,
        kube: KubeCluster,
        writes: Writes,
        now: Now,
        judged: Judged,
    ) -> tuple[TargetVerdict | None, bool]:
        sent = self._sent[target]
        # The wall clock of this boot's beginning, and steady from there: setting it makes nothing older.
        now_s = (self._wall_at_zero_s or 0.0) + now.monotonic
        items = self._items.get(target, {})
        parts: list[ObjectVerdict] = []
        disabled = False
        policies = self._policies.get(target, NO_POLICIES)
        custom = await self._evaluated(target, observer, now)
        for key, manifest in sent.objects.items():
            policy = policies.rules_for(manifest)
            # One that came in since then is judged as soon as it is evaluated, and not by anything else before.
            live, by_policy = custom.get(key) or (
                observer.live(key),
                None if policy is None else Custom(policy, NOT_EVALUATED),
            )
            if isinstance(live, NotSeen):
                why = Reason("NotObserved", f"{key} has not been looked at yet")
                parts.append(ObjectVerdict(key, Sync.UNKNOWN, Health.UNKNOWN, why))
                continue
            item = items.get(key)
            disabled = disabled or is_disabled(live)
            facts = self._facts.get((target, key), Facts())
            rule = sent.by_object.get(key)
            thresholds = policies.thresholds_for(manifest, self._thresholds)
            verdict, after = judge(manifest, live, item, facts, now_s, thresholds, None, rule, by_policy)
            self._server_says.pop((target, key), None)
            if live is not None and (
                verdict.sync is Sync.ASK or self._overwritten(verdict, manifest, live, rule, writes)
            ):
                wanted, acting = as_sent(manifest, live, rule), kube.acting_for(sent.source)
                answer = await self._ask(sent, wanted, live, acting, observer, writes.limits, now)
                verdict, after = judge(manifest, live, item, facts, now_s, thresholds, answer, rule, by_policy)
                if isinstance(answer, tuple):
                    self._server_says[target, key] = answer
                if answer is None:
                    verdict = replace(verdict, sync=Sync.ASK)
            if after != facts:
                self._facts[target, key] = after
                judged.facts.append((target, key, after))
            parts.append(verdict)
        whole = judge_target(target, sent.digest, parts, items, _seen_at(sent, observer), disabled=disabled)
        unwell = whole.health is not Health.HEALTHY or whole.sync in (Sync.ASK, Sync.UNKNOWN)
        return whole, unwell

    def _asked(self, target: Target, observer: Observer) -> Iterator[tuple[ObjectKey, Asked]]:
        """The live objects of `target` that a health policy judges by rules."""
        policies = self._policies.get(target, NO_POLICIES)
        for key, manifest in self._sent[target].objects.items() if policies.policies else ():
            policy = policies.rules_for(manifest)
            live = observer.live(key) if policy is not None else None
            if policy is not None and live is not None and not isinstance(live, NotSeen):
                yield key, Asked(policy, policies.digest(policy), live)

    async def _evaluated(self, target: Target, observer: Observer, now: Now) -> dict[ObjectKey, _Evaluated]:
        """What the rules give for them, each with the object it is about: a newer one may come in meanwhile, and makes
        the target due again."""
        asked = list(self._asked(target, observer))
        outcomes = await self._evaluations.outcomes([each for _, each in asked], now.monotonic)
        found = zip(asked, outcomes, strict=True)
        return {key: _Evaluated(each.live, Custom(each.policy, outcome)) for (key, each), outcome in found}

    def _overwritten(
        self, verdict: ObjectVerdict, manifest: Manifest, live: Manifest, rule: ObjectRule | None, writes: Writes
    ) -> bool:
        """True if live differs from what we applied and nobody has edited it. While writes are to come it is known why
        it differs."""
        if verdict.sync is not Sync.DIFFERS or verdict.ownership_only:
            return False
        target = self._target_of.get(verdict.key)
        pending = target is not None and writes.is_pending(target)
        return not pending and differs_unedited(as_sent(manifest, live, rule), live)

    async def _ask(
        self,
        sent: SentRelease,
        manifest: Manifest,
        live: Manifest,
        kube: ActingCluster,
        observer: Observer,
        limits: WriteLimits,
        now: Now,
    ) -> Answer | None:
        """The server's own answer to "would this change anything?", or why it refuses to say; None if it cannot be had
        now. Every answer is remembered: asking again costs as much as a write and brings the same, as long as neither
        the object (but for its status) nor the server's schema changes."""
        uid = str(live["metadata"]["uid"])
        key = (uid, sent.identity, await kube.schema_digest(), content_digest(live))
        known = self._answers.get(key)
        if known is not None and known.until_s > now.monotonic:
            return known.answer
        self._may_ask = self._may_ask and limits.take(now.monotonic, promise=False) is None
        if not self._may_ask:
            return None
        answer: Answer
        lifetime_s = ANSWER_LIFETIME_S
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        try:
            after = await kube.apply(manifest, uid=uid, force=True, dry_run=True)
            answer = same_after_dry_run(live, after) or changed_by(live, after)
        except KubeError as error:
            observer.failed(error)
            self._may_ask = error.answered
            if not error.answered:
                self._ask_from_s = loop.time() + ASKING_PAUSE * (loop.time() - asked_s)
            if not (error.permanent and error.answered) or error.status == 404:
                return None  # it passes; or the object is gone, which its watch or the next list will tell
            answer = error.reason
            if isinstance(error, ForbiddenError):
                lifetime_s = FORBIDDEN_LIFETIME_S
        while len(self._answers) >= DRY_RUNS_REMEMBERED_MAX:
            del self._answers[next(iter(self._answers))]
        # Spread by the key, so that what was asked together is not asked again together.
        self._answers[key] = _Remembered(answer, now.monotonic + lifetime_s * (0.9 + 0.2 * _spread(key)))
        return answer


def _spread(key: tuple[str, ...]) -> float:
    """A number from 0 to 1 that is always the same for `key`."""
    return int(digest_of(list(key), length=8), 16) / 0xFFFFFFFF


def _seen_at(sent: SentRelease, observer: Observer) -> Seen:
    """When the objects of `sent` were seen as they are known. One that was read by itself was seen then, whatever is
    known of its kind."""
    times = []
    for key in sent.objects:
        entry, kind_at = observer.cache.entry(key), observer.observed_at(GroupKind.of(key))
        known = [at for at in (kind_at, entry.observed_at if entry is not None else None) if at is not None]
        times.append(max(known, default=0.0))
    return Seen(min(times, default=0.0), max(times, default=0.0))
