"""What people see: the API's answers as text. The first line says most, and every "no" carries its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from reconciler.cli.output import Output
from reconciler.core.formats import exact_duration, rough_duration
from reconciler.core.values import clean_text

View = Callable[[Output, Any], None]
Json = Mapping[str, Any]
SHORT_SHA = 7
MESSAGE_LENGTH_MAX = 400
WAITS_SHOWN_MAX = 20


def _sha(revision: str | None) -> str:
    return revision[:SHORT_SHA] if revision else "-"


def _text(text: str | None) -> str:
    return clean_text(text or "", MESSAGE_LENGTH_MAX)


def _counts(states: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in states.items()) or "none"


def _plural(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


# ---- status --------------------------------------------------------------------------------------------------------


def status(out: Output, found: Json) -> None:
    """The whole daemon."""
    targets, clusters_ = found["targets"], found["clusters"]
    out.print(
        f"{_plural(found['applications'], 'application')} on {_plural(clusters_['total'], 'cluster')}: "
        f"{targets['synced']} of {_plural(targets['total'], 'target')} synced, {targets['healthy']} healthy"
    )
    out.print(f"targets   {_counts(targets['states'])}")
    out.print(f"clusters  {_counts({name: n for name, n in clusters_.items() if name != 'total'})}")
    for source in found["sources"]:
        _source(out, source)
    if found["rollouts"]:
        out.print()
        rollouts(out, found)
    shown = [wait for wait in found["waits"] if wait["reason"] not in ("NoSlot", "WaveInProgress")]
    if shown:
        out.print()
        # A thousand targets that wait for one thing are one line.
        groups: dict[tuple[str, str], list[str]] = {}
        for wait in shown:
            groups.setdefault((wait["reason"], wait["message"]), []).append(wait["subject"] or wait["unit"])
        rows = [(_listed(subjects), *why) for why, subjects in list(groups.items())[:WAITS_SHOWN_MAX]]
        out.table(("WAITS", "REASON", "WHY"), rows)
        if len(groups) > WAITS_SHOWN_MAX:
            out.print(f"and {len(groups) - WAITS_SHOWN_MAX} more reasons; -o json shows them")
    if found["outbox_backlog"]:
        out.print(f"\n{_plural(found['outbox_backlog'], 'message')} not delivered yet")


def _source(out: Output, source: Json) -> None:
    commit = source["commit"]
    what = f"{_sha(commit['sha'])} {_text(commit['subject'])} ({_text(commit['author'])})" if commit else "not read yet"
    out.print(f"source    {source['name']}: {what}")
    out.print(f"          applied {_sha(source['last_applied'])}, baked {_sha(source['last_baked'])}")
    if source["errors"] or source["warnings"]:
        counted = f"{_plural(source['errors'], 'error')}, {_plural(source['warnings'], 'warning')}"
        out.print(out.paint(f"          {counted} in this commit", "red" if source["errors"] else "yellow"))
    for name in ("failure", "kept"):
        if source[name]:
            out.print(out.paint(f"          {source[name]['code']}: {_text(source[name]['message'])}", "red"))


# ---- lists -----------------------------------------------------------------------------------------------------------


def apps(out: Output, found: Json) -> None:
    """One line per application."""
    rows = [
        (
            app["application"],
            app["health"],
            f"{app['synced']}/{app['targets']}",
            f"{app['healthy']}/{app['targets']}",
            ", ".join(_sha(revision) for revision in app["revisions"][:3]),
            app["blocked"]["message"] if app["blocked"] else ", ".join(app["rollouts"]) or _unsynced(app["states"]),
        )
        for app in found["applications"]
    ]
    out.table(("APPLICATION", "HEALTH", "SYNCED", "HEALTHY", "REVISION", "ROLLOUT OR REASON"), rows)


def _unsynced(states: dict[str, int]) -> str:
    """How many targets are in which state, but for those that are as Git wants them."""
    return (
        _counts({state: number for state, number in states.items() if state != "Synced"})
        if set(states) - {"Synced"}
        else ""
    )


def clusters(out: Output, found: Json) -> None:
    """One line per cluster."""
    rows = [
        (
            cluster["cluster"],
            cluster["state"],
            cluster["region"],
            f"{cluster['healthy']}/{cluster['targets']}",
            cluster["heard_at"],
            cluster["reason"]["message"] if cluster["reason"] else "",
        )
        for cluster in found["clusters"]
    ]
    out.table(("CLUSTER", "STATE", "REGION", "HEALTHY", "HEARD", "REASON"), rows)


def rollouts(out: Output, found: Json) -> None:
    """One line per rollout."""
    rows = []
    for rollout_ in found["rollouts"]:
        why = rollout_["message"] or (rollout_["wait"]["message"] if rollout_["wait"] else "")
        rows.append(
            (
                rollout_["id"],
                rollout_["application"],
                rollout_["state"],
                "  ".join(f"{wave['name']} {_done(wave)}/{wave['total']}" for wave in rollout_["waves"]),
                _sha(rollout_["revision"]),
                why,
            )
        )
    out.table(("ROLLOUT", "APPLICATION", "STATE", "WAVES", "REVISION", "REASON"), rows)


def _done(wave: Json) -> int:
    return int(wave["states"].get("Succeeded", 0))


def events(out: Output, found: Json) -> None:
    """The audit log, the newest last."""
    for event in reversed(found["events"]):
        where = event["application"] or event["source"] or ""
        where += f"@{event['cluster']}" if event["cluster"] else ""
        colour = {"event": "dim", "risk": "yellow"}.get(event["level"], "red")
        level = out.paint(f"{event['level']:<7}", colour)
        by = "" if event["actor"] == "reconciler" else f" ({_text(event['actor'])})"
        out.print(f"{event['time']}  {level}  {_text(where)}: {event['reason']}: {_text(event['message'])}{by}")
    if not found["events"]:
        out.print("no events")


# ---- one thing -------------------------------------------------------------------------------------------------------


def explain(out: Output, found: Json) -> None:
    """The gate that matters most, then one line per target."""
    where = found["application"] + (f" on {found['cluster']}" if found["cluster"] else "")
    by = f"blocked by {found['blocked_by']}: " if found["blocked_by"] else ""
    colour = "yellow" if found["blocked_by"] else "green"
    out.print(f"{where}: {out.paint(found['state'], colour)}")
    out.print(f"{by}{_text(found['message'])} [{found['reason']}]")
    out.print(f"commit {_sha(found['revision'])}, deployed {_sha(found['deployed_revision'])}")
    if found["rollout"]:
        out.print(f"rollout {found['rollout']}")
    if found["recheck_at"]:
        out.print(f"looked at again at {found['recheck_at']}")
    others = found.get("targets") or []
    if len(others) > 1:
        out.print()
        # A thousand clusters that wait for one thing are one line.
        groups: dict[tuple[str, str, str], list[str]] = {}
        for target in others:
            same = (target["state"], target["blocked_by"] or "", target["message"])
            groups.setdefault(same, []).append(target["cluster"])
        rows = [(_listed(names), *same) for same, names in groups.items()]
        out.table(("CLUSTERS", "STATE", "BLOCKED BY", "WHY"), rows)
    if found["blocked_by"] == "rollout" and found["rollout"]:
        out.print(f"\n`reconciler rollout show {found['rollout']}` shows all of it")


def _listed(names: Sequence[str]) -> str:
    """The first few, and how many more."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def rollout(out: Output, found: Json) -> None:
    """One rollout: its waves and targets."""
    out.print(f"{found['id']}: {found['application']} to {_sha(found['revision'])}, {found['state']}")
    if found["message"]:
        out.print(f"{found['reason']}: {_text(found['message'])}")
    ended = f", ended {found['ended_at']}" if found["ended_at"] else ""
    out.print(f"policy {found['policy']}, started {found['created_at']}{ended}, plan {found['hash'][:12]}")
    for wave in found["waves"]:
        out.print()
        out.print(
            out.paint(f"wave {wave['name']}", "bold")
            + f": {_counts(wave['states'])}; bake {exact_duration(wave['bake_s'])}, "
            f"{wave['max_concurrent']} at a time, {wave['max_failures']} may fail, "
            f"{wave['max_unreachable']} may be out of reach"
        )
        if wave["closed"]:
            out.print(f"  closed: {_text(wave['closed']['message'])}")
        waits = {wait["subject"]: wait["message"] for wait in found["waits"]}
        rows = [
            (
                _place(row, found["application"]),
                row["state"],
                rough_duration(row["bake_s"]),
                row["message"] or waits.get(f"{row['application']}@{row['cluster']}", ""),
            )
            for row in wave["targets"]
        ]
        out.table(("CLUSTER", "STATE", "BAKED", "WHY"), rows, "  ")
    rest = [wait for wait in found["waits"] if "@" not in wait["subject"]]
    for wait in rest:
        subject = f"{wait['subject']}: " if wait["subject"] else ""
        out.print(f"\nwaits: {subject}{_text(wait['message'])} [{wait['reason']}]")


def retried(out: Output, found: Json) -> None:
    """A rollout that is tried again: it goes on itself, or, where it has ended, a new one starts."""
    if not found["ended_at"]:
        rollout(out, found)
        return
    out.print(f"{found['id']} has ended ({found['state']}); its releases may be tried again, by a rollout of their own")
    out.print(f"`reconciler rollouts --active --app {found['application']}` shows it once it has started")


def _place(row: Json, application: str) -> str:
    """The cluster, with the application where the rollout has several."""
    return str(row["cluster"]) if row["application"] == application else f"{row['application']}@{row['cluster']}"


def synced(out: Output, found: Json) -> None:
    """What `sync` asked for."""
    out.print(f"asked {', '.join(found['sources']) or 'nobody'} to look at Git and compare everything anew")


# ---- diff, health ----------------------------------------------------------------------------------------------------


def diff(out: Output, found: Json) -> None:
    """Objects that differ, path by path."""
    parts = found["objects"]
    for part in parts:
        if part["action"] != "none":
            for line in _diff_lines(out, part):
                out.print(line)
    unknown = [part for part in parts if part["verdict"] == "not-judgeable"]
    differing = sum(part["action"] != "none" for part in parts)
    out.print(f"{differing} of {_plural(len(parts), 'object')} {'differs' if differing == 1 else 'differ'}")
    for name, why in sorted({(part["cluster"], part.get("message") or "") for part in unknown}):
        number = sum((part["cluster"], part.get("message") or "") == (name, why) for part in unknown)
        out.print(f"{_plural(number, 'object')} on {name} not judged by the server: {_text(why)}")
    if found["outdated"] and found["against"] == "assigned":
        count = _plural(found["outdated"], "target")
        out.print(f"Git asks for another release on {count}: `--against git` shows what they are to become")


def _diff_lines(out: Output, part: Json) -> Iterable[str]:
    marks = {"create": ("+", "green"), "update": ("~", "yellow"), "delete": ("-", "red")}
    mark, colour = marks[part["action"]]
    name = f"{part['namespace']}/{part['name']}" if part["namespace"] else part["name"]
    where = f" on {part['cluster']}" if part["cluster"] else ""
    head = _text(f"{mark} {part['action']:<6} {part['kind']} {name}{where}")
    yield out.paint(head, colour) + effect_words(part)
    if part["verdict"] in ("not-judgeable", "predicted") and part.get("message"):
        yield f"    {_text(part['message'])}"
    if part["conflicts"]:
        yield f"    takes fields from {_text(', '.join(part['conflicts']))}"
    for change in part["changes"]:
        yield f"    {change_line(change)}"


def effect_words(part: Json) -> str:
    """What a change does to a Flink job, in brackets; "" for other kinds."""
    if part["class"] is None and part["state"] == "none":
        return ""
    state = {"none": "", "kept": ", state is kept", "lost": ", STATE IS LOST"}[part["state"]]
    return f"  [{part['class'] or 'delete'}: {part['effect']}{state}]"


def change_line(change: Json) -> str:
    """One path of a diff."""
    display, old, new = change["display"], _value(change["old"]), _value(change["new"])
    if change["op"] == "add":
        return _text(f"+ {display}: {new}")
    if change["op"] == "remove":
        return _text(f"- {display}: {old}")
    return _text(f"~ {display}: {old} -> {new}")


def _value(value: Any) -> str:
    return clean_text(value if isinstance(value, str) else repr(value), 120)


def health(out: Output, found: Sequence[Json]) -> None:
    """One line per object."""
    rows = [(part["cluster"], part["health"], _named(part), f"{part['reason']}: {part['message']}") for part in found]
    out.table(("CLUSTER", "HEALTH", "OBJECT", "REASON"), rows)


def _named(part: Json) -> str:
    if not part["kind"]:
        return "-"
    return (
        f"{part['kind']} {part['namespace']}/{part['name']}" if part["namespace"] else f"{part['kind']} {part['name']}"
    )
