"""A plan for people: on a terminal, and as Markdown for a comment on a pull request.

Markdown is bounded (a forge takes 65,536 characters) and everything from the repository is quoted, so that a file name
or a commit cannot become markup.
"""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.cli.output import Output
from reconciler.core.fleet_plan import FleetPlan, PolicyChange
from reconciler.core.formats import exact_duration
from reconciler.core.plan_diff import Group, summary
from reconciler.core.values import clean_text

MARKDOWN_LENGTH_MAX = 60_000
GROUPS_SHOWN_MAX = 20
TARGETS_SHOWN_MAX = 8
NO_CHANGE = "No target changes."


def _head(plan: FleetPlan) -> str:
    if not plan.applications:
        return NO_CHANGE
    count, apps = plan.targets, len(plan.applications)
    what = f"{count} target{'s' * (count != 1)} of {apps} application{'s' * (apps != 1)} change"
    return f"{what}{'s' * (count == 1)}: {summary(plan.groups)}"


def _effect(change_class: str, effect: str, state: str) -> str:
    words = {"": "", "none": "", "kept": ", state is kept", "lost": ", STATE IS LOST"}[state]
    if not change_class and state == "lost":
        return "a job is deleted, STATE IS LOST"
    return f"{change_class}: {effect}{words}" if change_class else "created or changed without a running job"


def _targets(group: Group) -> str:
    shown = ", ".join(str(target) for target in group.targets[:TARGETS_SHOWN_MAX])
    rest = len(group.targets) - TARGETS_SHOWN_MAX
    return shown + (f" and {rest} more" if rest > 0 else "")


# ---- text ----------------------------------------------------------------------------------------------------------


def text(out: Output, plan: FleetPlan) -> None:
    """For a terminal."""
    out.print(f"plan {plan.hash[:12]}: {plan.before[:7]} -> {plan.after[:7]}" + (" against live" if plan.live else ""))
    out.print(_head(plan))
    for application in plan.applications:
        effect = _effect(*application.worst())
        lost = "STATE IS LOST" in effect
        out.print()
        was = f" (was {application.former})" if application.former else ""
        out.print(f"{application.application}{was}: {out.paint(effect, 'red') if lost else effect}")
        rows = [
            (
                wave.name,
                len(wave.targets),
                wave.max_concurrent,
                wave.max_failures,
                wave.max_unreachable,
                exact_duration(wave.bake_s),
                exact_duration(wave.minimum_s),
                f"closed: {wave.closed.message}" if wave.closed else _clusters(wave.targets),
            )
            for wave in application.frozen.waves
        ]
        heads = ("WAVE", "TARGETS", "AT A TIME", "MAY FAIL", "MAY BE AWAY", "BAKE", "AT LEAST", "CLUSTERS")
        out.table(heads, rows, "  ")
    for group in plan.groups[:GROUPS_SHOWN_MAX]:
        out.print()
        out.print(out.paint(clean_text(_targets(group)), "bold"))
        for part in group.diff:
            for line in part.lines():
                out.print(f"  {line.replace(f' on {part.cluster}', '', 1)}" if part.cluster else f"  {line}")
    for change in plan.policies:
        out.print()
        out.print(f"{out.paint(clean_text(f'policy {change.title}'), 'bold')}: {_from_then_on(change)}")
        for line in change.changes:
            out.print(f"  {clean_text(line)}")
    if len(plan.groups) > GROUPS_SHOWN_MAX:
        out.print(f"\n{len(plan.groups) - GROUPS_SHOWN_MAX} more groups; -o json shows all")
    if plan.problems:
        out.print()
    for problem in plan.problems:
        out.print(out.paint(clean_text(str(problem), 1000), "red" if problem.severity == "error" else "yellow"))
    if plan.applications:
        out.print(f"\nexpected: at least {exact_duration(plan.expected_s)}")


def _from_then_on(change: PolicyChange) -> str:
    count = len(change.applications)
    who = change.applications[0] if count == 1 else f"{count} applications"
    return f"counts from the next rollout of {clean_text(who)} on"


def _clusters(targets: tuple[tuple[str, str], ...]) -> str:
    names = sorted({cluster for _, cluster in targets})
    rest = len(names) - TARGETS_SHOWN_MAX
    return ", ".join(names[:TARGETS_SHOWN_MAX]) + (f" and {rest} more" if rest > 0 else "")


# ---- Markdown ------------------------------------------------------------------------------------------------------


def markdown(plan: FleetPlan) -> str:
    """For a comment."""
    lines: list[str] = []
    length = 0
    for line in _markdown(plan):
        if length + len(line) > MARKDOWN_LENGTH_MAX:
            lines.append("")
            lines.append("The plan is longer than a comment may be; `reconciler plan -o json` shows all of it.")
            break
        lines.append(line)
        length += len(line) + 1
    return "\n".join(lines)


def _markdown(plan: FleetPlan) -> Iterator[str]:
    yield f"### Plan `{plan.hash[:12]}`"
    yield ""
    yield f"`{plan.before[:7]}` → `{plan.after[:7]}`: {_head(plan)}"
    if plan.applications:
        yield ""
        yield "| Application | Effect | Waves | At least |"
        yield "|---|---|---|---|"
    for application in plan.applications:
        waves = ", ".join(f"{wave.name} {len(wave.targets)}" for wave in application.frozen.waves)
        effect = _effect(*application.worst()).replace("STATE IS LOST", "**STATE IS LOST**")
        name = _cell(application.application)
        yield f"| {name} | {effect} | {_cell(waves)} | {exact_duration(application.expected_s)} |"
    if plan.problems:
        yield ""
        yield "| | Where | What |"
        yield "|---|---|---|"
    for problem in plan.problems:
        where = f"{problem.file}:{problem.line}" if problem.line else problem.file
        yield f"| {problem.severity} | {_cell(where)} | {_cell(problem.message)} |"
    for group in plan.groups[:GROUPS_SHOWN_MAX]:
        yield ""
        yield f"<details><summary>{_html(_targets(group))}</summary>"
        yield ""
        yield "```diff"
        for part in group.diff:
            for line in part.lines():
                yield clean_text(line, 400).replace("```", "'''")
        yield "```"
        yield "</details>"
    for change in plan.policies:
        yield ""
        yield f"Policy {_cell(change.title)} {_from_then_on(change)}:"
        yield ""
        yield "```diff"
        for line in change.changes:
            yield clean_text(line, 400).replace("```", "'''")
        yield "```"
    if plan.applications:
        yield ""
        yield f"Expected: at least {exact_duration(plan.expected_s)}."


def _cell(text_: str) -> str:
    """Text as code inside a table's cell."""
    return "`" + clean_text(text_, 300).replace("`", "'").replace("|", "¦") + "`"


def _html(text_: str) -> str:
    return clean_text(text_, 600).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
