"""init, validate, render, waves, schema: arguments to functions that know no terminal, results to output and status."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from reconciler.cli import offline
from reconciler.cli.output import DONE, FOUND, USAGE, CommandError, Output
from reconciler.core import schemas
from reconciler.core.problems import Problem, has_errors
from reconciler.core.published_schema import published
from reconciler.core.schema import suggest


def init(arguments: argparse.Namespace, out: Output) -> int:
    """`init DIR`."""
    directory = Path(arguments.directory)
    try:
        written = offline.init(directory)
    except offline.UsageError as error:
        raise _usage(error) from error
    except OSError as error:
        raise CommandError(3, "not-written", f"cannot write to {directory}: {error.strerror}") from error
    if not out.is_text:
        out.value({"directory": str(directory), "files": written})
        return DONE
    for name in written:
        out.print(str(directory / name))
    out.print(f"\nNow: reconciler validate {directory}")
    return DONE


def validate(arguments: argparse.Namespace, out: Output) -> int:
    """`validate PATH`: 1 if there are errors."""
    try:
        found = offline.validate(Path(arguments.path))
    except offline.UsageError as error:
        raise _usage(error) from error
    if out.is_text:
        out.print(offline.problems_text(found).rstrip("\n"))
    else:
        out.value(offline.problems_json(found))
    return FOUND if has_errors(found.problems) else DONE


def render(arguments: argparse.Namespace, out: Output) -> int:
    """`render PATH`: 1 on invalid documents, with nothing on standard output but the error."""
    try:
        result = offline.render(Path(arguments.path), arguments.app, arguments.cluster)
    except offline.UsageError as error:
        raise _usage(error) from error
    if has_errors(result.problems):
        raise invalid(result.problems)
    if out.format == "json":
        out.value(result.as_json())
    else:
        out.print(result.text().rstrip("\n"))
    return DONE


def waves(arguments: argparse.Namespace, out: Output) -> int:
    """`waves --policy FILE --clusters DIR`: 1 on invalid documents."""
    try:
        result = offline.waves(Path(arguments.policy), Path(arguments.clusters))
    except offline.UsageError as error:
        raise _usage(error) from error
    if has_errors(result.problems):
        raise invalid(result.problems)
    if out.is_text:
        out.print(result.text().rstrip("\n"))
    else:
        out.value(result.as_json())
    return DONE


def schema(arguments: argparse.Namespace, out: Output) -> int:
    """`schema KIND`: the kind's JSON Schema."""
    found = schemas.SCHEMAS.get(arguments.kind)
    if found is None:
        raise CommandError(
            USAGE, "unknown-kind", f"no kind {arguments.kind!r}", suggest(arguments.kind, schemas.SCHEMAS)
        )
    out.value(published(found))
    return DONE


def _usage(error: offline.UsageError) -> CommandError:
    return CommandError(USAGE, "usage", str(error), error.hint)


def invalid(problems: Sequence[Problem]) -> CommandError:
    """Exit status 1: the documents are not valid; every error, and in one line the first of them."""
    errors = [problem for problem in problems if problem.severity == "error"]
    first, rest = errors[0], len(errors) - 1
    more = f" (and {rest} more)" if rest else ""
    where = f"{first.file}:{first.line}:{first.column}" if first.line else first.file
    return CommandError(FOUND, first.code, f"{where}: {first.message}{more}", first.hint, errors)
