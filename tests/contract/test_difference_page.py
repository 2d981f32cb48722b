"""The examples of the guide `how-a-difference-is-decided.md`, played: what is applied, edited and then said of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.apply_rules import ObjectRule
from reconciler.core.as_sent import as_sent
from reconciler.core.diff import compare, same_after_dry_run
from reconciler.core.field_paths import parse_field_path
from reconciler.core.yaml_kube import load
from tests.contract.api import KINDS, Api

PAGE = Path(__file__).parents[2] / "docs/guides/how-a-difference-is-decided.md"
PLURALS = {kind: plural for plural, kind in KINDS.items()}


#: Everything that is sent carries it.
_MARK = {"metadata": {"labels": {"reconciler.dev/owner": "abc"}}}


_RULES = {"ignoreDifferences", "handover"}


def examples() -> list[Any]:
    """Every example, with its line as its name."""
    text = PAGE.read_text(encoding="utf-8")
    found = []
    for block in re.finditer(r"^```yaml\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        line = text[: block.start()].count("\n") + 1
        found.append(pytest.param(load(PAGE.name, block[1].encode()).documents[0].value, id=f"line {line}"))
    return found


def test_there_are_examples() -> None:
    assert len(examples()) >= 10


@pytest.mark.parametrize("example", examples())
def test_what_the_guide_says_is_so(api: Api, example: dict[str, Any]) -> None:
    assert example.keys() <= {"applied", "edited", "declared", "answer", "at", "server", *_RULES}
    plural = PLURALS[example["applied"]["kind"]]
    live = api.apply(plural, "a", {**example["applied"], **_MARK}).expect(201)
    for edit in example.get("edited", []):
        live = api.merge(plural, "a", edit).expect(200)
    declared = api.whole(plural, "a", {**example.get("declared", example["applied"]), **_MARK})
    ignored = tuple(parse_field_path(path) for path in example.get("ignoreDifferences", []))
    if ignored or "handover" in example:
        declared = as_sent(declared, live, ObjectRule(ignore=ignored, handover=tuple(example.get("handover", []))))
    found = compare(declared, live)
    assert ("ownership" if found.ownership_only else found.sync.value) == example["answer"], found
    assert [change.display for change in found.changes] == example.get("at", [])
    would = api.apply(plural, "a", declared, dryRun="All", force="true").expect(200)
    server = "equal" if same_after_dry_run(live, would) else "differs"
    assert server == example.get("server", "equal" if example["answer"] == "in-sync" else "differs")
    assert "c3dvcmRmaXNo" not in repr(found)
    assert "aHVudGVyMg" not in repr(found)
