"""A RolloutPolicy: which numbers it may hold, and the typed value.

Numbers that are ambiguous or out of range are refused here, so that nothing has to be clamped when a plan is made. What
the schema knows and this version does not act on is noted on the wave, or on the whole policy, and keeps it closed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.core.digest import digest_of
from reconciler.core.documents import RolloutPolicy, WaveSpec
from reconciler.core.formats import Amount, duration_s, parse_amount
from reconciler.core.schema import Finding
from reconciler.core.yaml_kube import Document, Path

BAKE_MAX_S = 86_400.0
PROGRESS_DEADLINE_S = (10.0, 86_400.0)
#: What one rollout may delete at the most, whatever the fleet's size.
DELETES_MAX = 20

_DEFAULT_CONCURRENT = Amount(number=1)
_NONE_FAILED = Amount(number=0)
_TEN_PERCENT = Amount(basis_points=1_000)


def check_policy(spec: Mapping[str, Any]) -> list[Finding]:
    """What the schema cannot say of a RolloutPolicy's spec."""
    findings: list[Finding] = []
    names: set[str] = set()
    waves = spec["waves"]
    for index, wave in enumerate(waves):
        at: Path = ("spec", "waves", index)
        if wave["name"] in names:
            findings.append(Finding((*at, "name"), "duplicate-name", f"a second wave named {wave['name']!r}"))
        names.add(wave["name"])
        findings += _check_wave(wave, at, last=index == len(waves) - 1)
    deadline = duration_s(spec.get("progressDeadline"))
    low, high = PROGRESS_DEADLINE_S
    if deadline is not None and not low <= deadline <= high:
        says = f"'progressDeadline' is {spec['progressDeadline']}: from 10s to 24h is allowed"
        findings.append(Finding(("spec", "progressDeadline"), "invalid-value", says))
    deletes = parse_amount(spec.get("maxDeletes"))
    if deletes and deletes.number is not None and deletes.number > DELETES_MAX:
        says = f"'maxDeletes' is {deletes}: at most {DELETES_MAX} are allowed"
        findings.append(Finding(("spec", "maxDeletes"), "invalid-value", says))
    return findings


def _check_wave(wave: Mapping[str, Any], at: Path, *, last: bool) -> list[Finding]:
    findings = []
    has_select, has_size = wave.get("select") is not None, wave.get("size") is not None
    if has_select == has_size:
        says = (
            "select and size are alternatives" if has_select else "the wave takes no targets: select or size is missing"
        )
        findings.append(Finding((*at, "size"), "invalid-value", says, "size: 100% takes all that are left"))
    elif has_select and not (wave["select"].get("clusters") or wave["select"].get("applications")):
        findings.append(Finding((*at, "select"), "invalid-value", "select names no labels", "size: 100% takes all"))
    elif has_size:
        whole = parse_amount(wave["size"]) == Amount(basis_points=10_000)
        if last and not whole:
            says = f"'size' of the last wave is {wave['size']}: the last wave takes all that are left"
            findings.append(Finding((*at, "size"), "invalid-value", says, "write size: 100%"))
        elif whole and not last:
            says = "after size: 100% no target is left for the waves below"
            findings.append(Finding((*at, "size"), "invalid-value", says, "only the last wave takes 100%"))
    bake_s = duration_s(wave.get("bake"))
    if bake_s is not None and bake_s > BAKE_MAX_S:
        findings.append(Finding((*at, "bake"), "invalid-value", f"'bake' is {wave['bake']}: at most 24h is allowed"))
    return findings


def build_policy(document: Document, findings: list[Finding]) -> RolloutPolicy:
    """The policy of a document without errors; `findings` tell what in it is not enforced."""
    spec = document.value["spec"]
    unenforced = [finding.path for finding in findings if finding.code == "not-yet-enforced"]
    waves = []
    for index, wave in enumerate(spec["waves"]):
        names = [str(path[3]) for path in unenforced if path[:3] == ("spec", "waves", index)]
        waves.append(_wave(wave, tuple(names)))
    deadline_s = duration_s(spec.get("progressDeadline"))
    return RolloutPolicy(
        name=document.value["metadata"]["name"],
        waves=tuple(waves),
        progress_deadline_s=900.0 if deadline_s is None else deadline_s,
        on_failure=spec.get("onFailure") or "halt",
        mandatory=spec.get("mandatory") is not False,
        max_unreachable=parse_amount(spec.get("maxUnreachable")) or _TEN_PERCENT,
        max_deletes=parse_amount(spec.get("maxDeletes")) or _TEN_PERCENT,
        digest=digest_of([document.value["metadata"]["name"], spec]),
        not_enforced=tuple(str(path[1]) for path in unenforced if path[1] != "waves"),
        file=document.file,
    )


def _wave(wave: Mapping[str, Any], not_enforced: tuple[str, ...]) -> WaveSpec:
    select = wave.get("select")
    return WaveSpec(
        name=wave["name"],
        clusters=None if select is None else dict(select.get("clusters") or {}),
        applications=None if select is None else dict(select.get("applications") or {}),
        size=parse_amount(wave.get("size")),
        bake_s=duration_s(wave.get("bake")) or 0.0,
        max_concurrent=parse_amount(wave.get("maxConcurrent")) or _DEFAULT_CONCURRENT,
        max_failures=parse_amount(wave.get("maxFailures")) or _NONE_FAILED,
        max_unreachable=parse_amount(wave.get("maxUnreachable")),
        approval=wave.get("approval"),
        not_enforced=not_enforced,
    )
