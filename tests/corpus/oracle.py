"""The oracle: what the server itself says to a dry-run of the declared object, and what the client may then have said.

It shares no code with the comparison that it judges. The dry-run's answer beside live is equal, or equal but for what
is recorded as ours, or of other values; a refusal (an immutable field) is an answer too: the object is not in sync.

    list(contradictions(desired, live, answer))     # [] or sentences, each a fault
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from reconciler.cli.offline_live import diff_files
from reconciler.core.diff import Comparison, compare, same_after_dry_run
from reconciler.core.explain_diff import changes
from reconciler.core.judge import means_the_same
from reconciler.core.model import Sync
from reconciler.core.values import quantity
from tests.corpus.servers import Answer

Object = dict[str, Any]


class Outcome(enum.StrEnum):
    """What an apply would do."""

    EQUAL = "equal"
    OWNERSHIP = "ownership"
    VALUES = "values"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Look:
    """What client and server said of one pair, for figures and for comparing servers."""

    found: Comparison
    outcome: Outcome
    faults: tuple[str, ...]
    refusal: str = ""

    @property
    def told(self) -> tuple[Any, ...]:
        """What must be the same on every server."""
        places = tuple(sorted(change.path for change in self.found.changes))
        return self.found.sync, self.found.ownership_only, self.found.reason.code, places, self.outcome


def _values(manifest: Object) -> str:
    metadata = {
        name: value
        for name, value in manifest["metadata"].items()
        if name not in ("managedFields", "resourceVersion", "generation")
    }
    rest = {name: value for name, value in manifest.items() if name not in ("metadata", "status")}
    return json.dumps([rest, metadata], sort_keys=True)


def _ours(manifest: Object) -> list[str]:
    """What is recorded as ours. What others hold beside us is theirs."""
    entries = [
        {**entry, "time": ""}
        for entry in manifest["metadata"].get("managedFields", [])
        if (entry["manager"], entry["operation"], entry.get("subresource", "")) == ("reconciler", "Apply", "")
    ]
    return [json.dumps(entry, sort_keys=True) for entry in entries]


def outcome_of(live: Object, answer: Answer) -> Outcome:
    """What an apply would make of `live`."""
    if not answer.is_object:
        return Outcome.REFUSED
    if _values(live) != _values(answer.body):
        return Outcome.VALUES
    return Outcome.EQUAL if _ours(live) == _ours(answer.body) else Outcome.OWNERSHIP


def look(desired: Object, live: Object, answer: Answer, secrets: tuple[str, ...] = ()) -> Look:
    """Compare on the client and hold it against the server's answer to the dry-run."""
    found, outcome = compare(desired, live), outcome_of(live, answer)
    faults = [*_compared(found, outcome, desired, live), *_on_the_client(found, outcome, desired, live, answer)]
    if answer.is_object and same_after_dry_run(live, answer.body) != (outcome is Outcome.EQUAL):
        faults.append(f"same_after_dry_run is wrong: the outcome is {outcome}")
    faults += _leaks(desired, live, found, secrets)
    return Look(found, outcome, tuple(faults), "" if answer.is_object else answer.says)


def _compared(found: Comparison, outcome: Outcome, desired: Object, live: Object) -> Iterator[str]:
    if found.sync is Sync.IN_SYNC:
        # A refused repetition (data: {} of an immutable Secret) is no difference.
        if outcome not in (Outcome.EQUAL, Outcome.REFUSED):
            yield f"missed: in sync, and the server says {outcome}"
        if not _holds(desired, live):
            yield "missed: in sync, and a declared value is not live"
    elif found.sync is Sync.DIFFERS:
        if outcome is Outcome.REFUSED:
            return
        # What the server drops is a difference until it is recorded as ours; an apply changes something, once.
        if found.ownership_only and outcome is not Outcome.OWNERSHIP:
            yield f"wrong: ownership only, and the server says {outcome}"
        if outcome is Outcome.EQUAL:
            yield f"perpetual: it differs at {found.changes[0]}, and the server says {outcome}"
    elif found.sync is not Sync.ASK:
        yield f"neither in sync, differing nor in doubt: {found.sync}"


def _on_the_client(found: Comparison, outcome: Outcome, desired: Object, live: Object, answer: Answer) -> Iterator[str]:
    """What is judged where no server can be asked: by files, and where a webhook refuses dry-runs."""
    shown, same = changes(desired, live), means_the_same(desired, live)
    if outcome is Outcome.EQUAL or found.ownership_only:
        if shown and not _UNKNOWN_TO_A_CLIENT.search(json.dumps([desired["kind"], shown[0].as_json()])):
            yield f"perpetual in files: {shown[0]}"
        if not same and not shown:
            yield "perpetual without dry-runs: it does not mean the same"
    if outcome is Outcome.VALUES and not _mean_the_same(live, answer.body):
        if not shown:
            yield "missed in files: nothing is shown"
        if same and found.sync is Sync.ASK:
            yield f"missed without dry-runs: it means the same ({found.reason.message})"


#: What no client can know: what the server drops (behind feature gates, beside other fields), and defaults that depend
#: on other fields.
_UNKNOWN_TO_A_CLIENT = re.compile(
    r"podCertificate|clusterTrustBundle|sessionAffinityConfig|dataSource|LimitRange|NetworkPolicy.*policyTypes"
    r'|"ServiceAccount".*secrets|behavior|"new": \[\]'
)


def _mean_the_same(live: Object, after: Object) -> bool:
    """Two objects that differ in spelling only: a quantity of another form, something empty or nothing."""
    before, then = json.loads(_values(live)), json.loads(_values(after))
    return _holds(before, then) and _holds(then, before)


def _holds(desired: Any, live: Any) -> bool:
    """Every declared value is there, of the same type, but for quantities, line breaks in base64, and what says nothing
    and is left out; a list's items in their order, with others between at most."""
    if isinstance(desired, dict):
        return isinstance(live, dict) and all(
            _holds(value, live[name]) if name in live else not value for name, value in desired.items()
        )
    if isinstance(desired, list) and desired:
        if not isinstance(live, list):
            return False
        rest = iter(live)
        return all(any(_holds(item, other) for other in rest) for item in desired)
    if desired in ([], {}) and live is None:
        return True
    number = quantity(desired)
    same_number = number is not None and number == quantity(live)
    without_breaks = desired.replace("\n", "") if isinstance(desired, str) else desired
    return same_number or live in (desired, without_breaks)


def _leaks(desired: Object, live: Object, found: Comparison, secrets: tuple[str, ...]) -> Iterator[str]:
    """No text that a person or a program gets holds what a Secret holds."""
    if not secrets:
        return
    result = diff_files("want.yaml", json.dumps(desired).encode(), "live.yaml", json.dumps(live).encode())
    shown = {
        "the comparison": repr(found),
        "diff -o json": json.dumps(result.as_json()),
        "diff": "\n".join(result.lines()),
        "a change's text": "\n".join(str(change) for change in found.changes),
    }
    for where, text in shown.items():
        for secret in secrets:
            if secret in text:
                yield f"leaked: {where} holds {secret!r}"
