"""Asking a running daemon: names as people write them, times as JSON has them, and refusals that say what to do.

An application is `fleet/name`, or `name` where only one fleet has it; a name that fits several is refused with all of
them. Nothing here changes anything.

    find_application(daemon, "orders")      # "sample/orders", or AskError("ambiguous-application", ...)
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable

from reconciler.core.model import Now, Reason, Rollout
from reconciler.core.schema import suggest
from reconciler.shell.daemon import Daemon
from reconciler.shell.ports import Tx

#: Answers are bounded: whoever needs more asks again, with `after` or a name.
ANSWERS_MAX = 1000


class AskError(Exception):
    """The question cannot be answered as it was put. `code` is for programs, `hint` says what can be asked."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


class RefusedError(AskError):
    """The order cannot be carried out as things stand."""


# ---- times -------------------------------------------------------------------------------------------------------


def rfc3339(wall: float | None) -> str | None:
    """Seconds since the epoch as RFC 3339 in UTC, to the second (rounded up, so that "look again at" is not early).
    None for no time and for one outside the years 1 to 9999: no single time may make a whole answer fail."""
    if wall is None:
        return None
    try:
        moment = dt.datetime.fromtimestamp(math.ceil(wall), dt.UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def moment_of(monotonic_s: float | None, now: Now) -> str | None:
    """A Now.monotonic as RFC 3339 in UTC, by today's wall clock."""
    return None if monotonic_s is None else rfc3339(now.wall + monotonic_s - now.monotonic)


def reason_json(reason: Reason | None) -> dict[str, str] | None:
    """Code and message."""
    return None if reason is None else {"code": reason.code, "message": reason.message}


# ---- names -------------------------------------------------------------------------------------------------------


def declared_applications(daemon: Daemon) -> dict[str, str]:
    """The source of each application that is declared now; of two sources with one name the first counts."""
    found: dict[str, str] = {}
    for source in sorted(daemon.sources):
        snapshot = daemon.sources[source].snapshot
        for name in snapshot.applications if snapshot is not None else ():
            found.setdefault(name, source)
    return found


def known_applications(daemon: Daemon, tx: Tx) -> dict[str, str]:
    """As declared_applications, with those that are only assigned any more."""
    found = declared_applications(daemon)
    for source in sorted(daemon.sources):
        for row in tx.assignments(source=source):
            found.setdefault(row.target.application, source)
    return found


async def find_application(daemon: Daemon, name: str) -> str:
    """The full name of the application called `name` or `fleet/name`. Raises AskError."""
    found = _matching(name, declared_applications(daemon))
    if not found:
        known = await daemon.context.store.read("names", lambda tx: known_applications(daemon, tx))
        found = _matching(name, known)
        if not found:
            hint = suggest(name.rpartition("/")[2], {full.rpartition("/")[2] for full in known})
            unread = [source for source, unit in sorted(daemon.sources.items()) if unit.snapshot is None]
            if unread:
                hint = f"not read yet: {', '.join(unread)}; `reconciler status` says why"
            raise AskError("unknown-application", f"there is no application {name!r}", hint)
    if len(found) > 1:
        raise AskError("ambiguous-application", f"{name!r} may be {' or '.join(found)}", "use the full name")
    return found[0]


def _matching(name: str, known: Iterable[str]) -> list[str]:
    names = sorted(known)
    return [name] if name in names else [full for full in names if full.partition("/")[2] == name]


def find_cluster(daemon: Daemon, name: str) -> str:
    """`name`, if it is a declared cluster. Raises AskError."""
    if name not in daemon.board.clusters:
        raise AskError("unknown-cluster", f"there is no cluster {name!r}", suggest(name, daemon.board.clusters))
    return name


async def find_rollout(daemon: Daemon, name: str) -> Rollout:
    """The rollout with this id, or the one whose id begins so. Raises AskError."""

    def look(tx: Tx) -> tuple[Rollout | None, list[Rollout]]:
        return tx.rollout(name), tx.rollouts(limit=ANSWERS_MAX)

    exact, recent = await daemon.context.store.read("rollout", look)
    if exact is not None:
        return exact
    found = [rollout for rollout in recent if rollout.id.startswith(name)] if name else []
    if len(found) == 1:
        return found[0]
    if found:
        named = ", ".join(sorted(rollout.id for rollout in found)[:5])
        raise AskError("ambiguous-rollout", f"{name!r} may be one of {named}", "use the whole id")
    hint = suggest(name, [rollout.id for rollout in recent[:50]]) or "`reconciler rollouts` lists them"
    raise AskError("unknown-rollout", f"there is no rollout {name!r}", hint)
