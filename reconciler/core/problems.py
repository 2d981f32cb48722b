"""Problems: what is wrong in a document, where, and what to do about it.

A problem is a value, never an exception that stops the others: one bad application leaves the rest of the fleet alone.

    Problem("apps/orders/app.yaml", 12, 9, Severity.ERROR, "unknown-trait", "no trait 'chekpointing'",
            "did you mean 'checkpointing'? `reconciler traits list` shows them all")
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any


class Severity(enum.StrEnum):
    """How much a problem matters: an error blocks what it concerns, a warning is shown."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One located problem. `line` and `column` count from 1; 0 means the file as a whole."""

    file: str
    line: int
    column: int
    severity: Severity
    code: str
    message: str
    hint: str = ""

    def as_json(self) -> dict[str, Any]:
        """The shape `validate -o json` prints."""
        return {
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "severity": str(self.severity),
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
        }

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}: {self.severity}: {self.message} [{self.code}]{hint}"


def has_errors(problems: tuple[Problem, ...] | list[Problem]) -> bool:
    """True if any of `problems` is of severity error."""
    return any(problem.severity is Severity.ERROR for problem in problems)
