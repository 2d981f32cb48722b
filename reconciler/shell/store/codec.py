"""Values to rows and back, for the values that are not plain columns.

Plans, releases and messages are stored as canonical JSON, so that equal values are equal bytes. Decoding is a pure
function of what is stored: a Decoder remembers the last results by the bytes they were made of, and so can never return
what is not in the database, whatever was rolled back or collected. What names an object or a target stands in many rows
and is one string in memory for all of them (`sys.intern`).

    >>> decode_plan(encode_plan(plan)) == plan
    True
"""

from __future__ import annotations

import functools
import json
import sys
import zlib
from collections.abc import Mapping
from typing import Any

import orjson

from reconciler.core.digest import canonical_json
from reconciler.core.model import (
    FrozenPlan,
    Intent,
    IntentState,
    InventoryItem,
    InventoryPhase,
    Manifest,
    ObjectKey,
    Reason,
    Target,
    Verb,
    Wave,
)

#: Plans and releases that a store keeps decoded. A plan of one application is about 1 KB, a release about 20 KB.
PLANS_CACHED = 128
RELEASES_CACHED = 256


def encode_json(value: Mapping[str, Any]) -> str:
    """`value` as canonical JSON text. Raises ValueError for NaN and infinities, TypeError for what is not JSON."""
    return canonical_json(dict(value)).decode()


def decode_json(text: str) -> dict[str, Any]:
    """The mapping that `encode_json` stored."""
    value = orjson.loads(text)
    assert isinstance(value, dict)
    return value


def encode_strings(values: tuple[str, ...]) -> str:
    """As a JSON list."""
    return canonical_json(list(values)).decode() if values else "[]"


def decode_strings(text: str) -> tuple[str, ...]:
    """The reverse of encode_strings."""
    return tuple(orjson.loads(text)) if text != "[]" else ()


def encode_numbers(values: tuple[float, ...]) -> str:
    """As a JSON list."""
    return canonical_json(list(values)).decode()


def decode_numbers(text: str) -> tuple[float, ...]:
    """The reverse of encode_numbers."""
    return tuple(orjson.loads(text))


def reason_of(code: str | None, message: str | None) -> Reason | None:
    """The reason in two columns; a code of NULL is none."""
    return None if code is None else Reason(code, message or "")


def reason_columns(reason: Reason | None) -> dict[str, str | None]:
    """The reverse of reason_of."""
    if reason is None:
        return {"reason_code": None, "reason_message": None}
    return {"reason_code": reason.code, "reason_message": reason.message}


def key_columns(key: ObjectKey) -> dict[str, str]:
    """The four columns of an object's key."""
    return {"api_group": key.group, "kind": key.kind, "namespace": key.namespace, "name": key.name}


def target_of(application: str, cluster: str) -> Target:
    """The target that two columns name."""
    return Target(sys.intern(application), sys.intern(cluster))


def key_of(group: str, kind: str, namespace: str, name: str) -> ObjectKey:
    """The object that four columns name."""
    return ObjectKey(sys.intern(group), sys.intern(kind), sys.intern(namespace), sys.intern(name))


def target_columns(target: Target) -> dict[str, str]:
    """The two columns of a target."""
    return {"application": target.application, "cluster": target.cluster}


def encode_objects(objects: tuple[Manifest, ...]) -> bytes:
    """A release's objects, compressed at the fastest level: most of the gain, and compiling a fleet stores many."""
    return zlib.compress(canonical_json(list(objects)), 1)


def decode_objects(data: bytes) -> tuple[Manifest, ...]:
    """The objects. The standard library reads them, for orjson turns integers beyond 64 bits into floats."""
    return tuple(json.loads(zlib.decompress(data)))


def encode_plan(plan: FrozenPlan) -> str:
    """A frozen plan as JSON."""
    document = {
        "waves": [
            {
                "name": wave.name,
                "targets": [list(target) for target in wave.targets],
                "bake_s": wave.bake_s,
                "max_concurrent": wave.max_concurrent,
                "max_failures": wave.max_failures,
                "max_unreachable": wave.max_unreachable,
                "closed": None if wave.closed is None else [wave.closed.code, wave.closed.message],
            }
            for wave in plan.waves
        ],
        "progress_deadline_s": plan.progress_deadline_s,
        "on_failure": plan.on_failure,
        "mandatory": plan.mandatory,
        "policy": plan.policy,
        "hash": plan.hash,
        "check_interval_s": plan.check_interval_s,
        "max_deletes": plan.max_deletes,
    }
    return canonical_json(document).decode()


def decode_plan(text: str) -> FrozenPlan:
    """The reverse of encode_plan."""
    document = orjson.loads(text)
    waves = tuple(
        Wave(
            name=wave["name"],
            targets=tuple(Target(*target) for target in wave["targets"]),
            bake_s=wave["bake_s"],
            max_concurrent=wave["max_concurrent"],
            max_failures=wave["max_failures"],
            max_unreachable=wave["max_unreachable"],
            closed=None if wave["closed"] is None else Reason(*wave["closed"]),
        )
        for wave in document["waves"]
    )
    return FrozenPlan(
        waves=waves,
        progress_deadline_s=document["progress_deadline_s"],
        on_failure=document["on_failure"],
        mandatory=document["mandatory"],
        policy=document["policy"],
        hash=document["hash"],
        check_interval_s=document["check_interval_s"],
        max_deletes=document["max_deletes"],
    )


#: Look-ups instead of calls of the enums: there may be many rows.
_PHASES = {phase.value: phase for phase in InventoryPhase}
_VERBS = {verb.value: verb for verb in Verb}
_STATES = {state.value: state for state in IntentState}


def decode_item(row: tuple[Any, ...]) -> InventoryItem:
    """An item of the inventory from all columns of its table, in their order."""
    cluster, application, group, kind, namespace, name, api_version, phase, uid, generation = row
    return InventoryItem(
        target_of(application, cluster),
        key_of(group, kind, namespace, name),
        sys.intern(api_version),
        _PHASES[phase],
        sys.intern(uid),
        generation,
    )


def decode_intent(row: tuple[Any, ...]) -> Intent:
    """An intent from all columns of its table, in their order."""
    _, identity, owner, purpose, application, cluster, verb, group, kind, namespace, name, api_version, *rest = row
    digest, attempt, place, epoch, state, code, message = rest
    return Intent(
        id=identity,
        owner=sys.intern(owner),
        purpose=sys.intern(purpose),
        target=target_of(application, cluster),
        verb=_VERBS[verb],
        key=key_of(group, kind, namespace, name),
        api_version=sys.intern(api_version),
        digest=sys.intern(digest),
        attempt=attempt,
        order=place,
        epoch=epoch,
        state=_STATES[state],
        reason=reason_of(code, message),
    )


class Decoder:
    """Decodes what is asked for again and again, remembering the last results. What it returns is shared and must not
    be changed. Safe to use from several threads."""

    def __init__(self) -> None:
        self.plan = functools.lru_cache(PLANS_CACHED)(decode_plan)
        self.objects = functools.lru_cache(RELEASES_CACHED)(decode_objects)
