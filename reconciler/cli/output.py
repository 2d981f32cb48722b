"""How commands print: text for people, JSON or YAML for programs, and errors of one shape.

Machine output is one document on standard output and nothing else there. Colour is for a terminal only, and never with
`--no-color` or NO_COLOR. Text of strangers (commit messages, statuses of clusters) loses its control characters here.

    raise CommandError(2, "unknown-application", "there is no application 'ordres'", "did you mean 'orders'?")
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from reconciler.core.problems import Problem
from reconciler.core.values import clean_text

DONE, FOUND, USAGE, FAILED = 0, 1, 2, 3
CELL_LENGTH_MAX = 400

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "dim": "2", "bold": "1"}
#: Words with a colour of their own wherever they are a whole cell.
_WORDS = {
    **dict.fromkeys(("Healthy", "Synced", "Succeeded", "Reachable", "ok"), "green"),
    **dict.fromkeys(("Progressing", "Waiting", "Active", "Applying", "Baking", "Connecting", "Outdated"), "blue"),
    **dict.fromkeys(("Paused", "Suspended", "RollingBack", "RolledBack", "Superseded", "warning", "risk"), "yellow"),
    **dict.fromkeys(("Missing", "Unreachable", "NoCredentials", "Unknown", "Drifted", "Skipped", "Blocked"), "yellow"),
    **dict.fromkeys(("Degraded", "Halted", "Failed", "TimedOut", "Aborted", "error", "alert", "fault"), "red"),
}


class CommandError(Exception):
    """A command that could not do what was asked. `status` is the exit status, `problems` are all that are wrong with
    the documents it was given: people see a line for each, programs a list."""

    def __init__(self, status: int, code: str, message: str, hint: str = "", problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint
        self.problems = tuple(problems)

    def as_json(self) -> dict[str, Any]:
        """The one shape of an error."""
        error: dict[str, Any] = {"code": self.code, "message": self.message, "hint": self.hint}
        if len(self.problems) > 1:
            error["problems"] = [problem.as_json() for problem in self.problems]
        return {"error": error}


@dataclass(frozen=True, slots=True)
class Output:
    """Where and how to print."""

    format: str = "text"
    colour: bool = False
    stream: TextIO | None = None

    @classmethod
    def for_terminal(cls, chosen: str, *, no_color: bool) -> Output:
        """Colour if standard output is a terminal that wants it."""
        wanted = sys.stdout.isatty() and not no_color and "NO_COLOR" not in os.environ
        return cls(chosen, wanted and os.environ.get("TERM") != "dumb")

    @property
    def is_text(self) -> bool:
        """True if people read it."""
        return self.format in ("text", "markdown")

    def print(self, text: str = "") -> None:
        """One line, or several, for people."""
        print(text, file=self.stream or sys.stdout)

    def value(self, value: Any) -> None:
        """A document for programs, in the chosen format."""
        if self.format == "yaml":
            from reconciler.core.yaml_dump import dump  # noqa: PLC0415 - on use

            self.print(dump([value]).rstrip("\n"))
        else:
            self.print(json.dumps(value, indent=2, ensure_ascii=False))

    def paint(self, text: str, colour: str) -> str:
        """`text` in a colour, where there is colour."""
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self.colour and text else text

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[Any]], indent: str = "") -> None:
        """Aligned columns under their heads; the last one may be as long as it likes."""
        cells = [[_cell(value) for value in row] for row in rows]
        widths = [max(len(row[number]) for row in [list(heads), *cells]) for number in range(len(heads))]
        self.print(indent + self.paint(_line(heads, widths), "dim"))
        for row in cells:
            self.print(indent + self._painted(_line(row, widths), row, widths))

    def _painted(self, line: str, row: Sequence[str], widths: Sequence[int]) -> str:
        if not self.colour:
            return line
        parts = []
        for number, cell in enumerate(row):
            padded = cell.ljust(widths[number]) if number < len(row) - 1 else cell
            parts.append(self.paint(padded, _WORDS[cell]) if cell in _WORDS else padded)
        return "  ".join(parts)


def _cell(value: Any) -> str:
    text = "-" if value is None or value == "" else str(value)
    return clean_text(text, CELL_LENGTH_MAX)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells[:-1], widths[:-1], strict=True)]
    return "  ".join([*padded, cells[-1]]).rstrip()


def print_error(error: CommandError, *, as_json: bool) -> None:
    """To standard output as JSON for programs, else to standard error as one line with a hint; several problems have a
    line each before it."""
    if as_json:
        print(json.dumps(error.as_json(), indent=2, ensure_ascii=False))  # noqa: T201 - this is where commands print
        return
    hint = f" ({error.hint})" if error.hint else ""
    message = error.message
    if len(error.problems) > 1:
        for problem in error.problems:
            print(clean_text(str(problem), 2000), file=sys.stderr)  # noqa: T201 - this is where commands print
        message, hint = f"{len(error.problems)} errors", ""
    print(clean_text(f"reconciler: {message}{hint}", 2000), file=sys.stderr)  # noqa: T201 - as above
