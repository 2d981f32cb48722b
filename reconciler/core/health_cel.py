"""Evaluating the rules of a health policy: CEL, bytes in and bytes out.

`answer` is what the worker process runs for each object, and the simulator calls inline. An expression comes from Git
and may take for ever, all memory or the whole process with it: production calls this in shell/worker.py only. Reading
an expression is cheap and bounded by its length, so that `expression_problem` may be called anywhere.

    answer(b'{"rules": [["object.status.phase == \\'Failed\\'", ""]], "object": {"status": {"phase": "Failed"}}}')
    b'{"rule":0,"message":"","error":""}'
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any

from reconciler.core.values import clean_text

EXPRESSION_LENGTH_MAX = 1000
MESSAGE_LENGTH_MAX = 300
PROGRAMS_MAX = 1024
#: The one variable of a rule.
VARIABLE = "object"
#: Functions that rules may call, beside operators and macros. Whatever else the library has is not promised to anybody.
FUNCTIONS = frozenset(
    {
        "bool", "bytes", "contains", "double", "duration", "dyn", "endsWith", "getDate", "getDayOfMonth",
        "getDayOfWeek", "getDayOfYear", "getFullYear", "getHours", "getMilliseconds", "getMinutes", "getMonth",
        "getSeconds", "int", "matches", "max", "min", "size", "startsWith", "string", "timestamp", "type", "uint",
    }
)  # fmt: skip
#: Names that a comprehension binds: `list.exists(c, ...)`.
_BOUND = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(\s*([A-Za-z_]\w*)\s*,")
_TYPES = frozenset({"bool", "bytes", "double", "int", "list", "map", "null_type", "string", "uint"})


@functools.lru_cache(maxsize=PROGRAMS_MAX)
def _program(expression: str) -> Any:
    import cel  # noqa: PLC0415 - on use: most commands read no expression

    return cel.compile(expression)


def expression_problem(expression: str) -> str:
    """What is wrong with an expression before it is ever evaluated, "" if nothing: its length, its syntax, a variable
    or function that does not exist."""
    if len(expression) > EXPRESSION_LENGTH_MAX:
        return f"it is {len(expression)} characters long: at most {EXPRESSION_LENGTH_MAX} are allowed"
    try:
        program = _program(expression)
    except ValueError as error:
        return _syntax(str(error))
    known = {VARIABLE, *_TYPES, *_BOUND.findall(expression)}
    for name in program.variables():
        if name not in known:
            return f"there is no variable {name!r}: the live object is {VARIABLE!r}"
    for name in program.functions():
        if name[0].isalpha() and name not in FUNCTIONS:
            return f"there is no function {name!r}: there are {', '.join(sorted(FUNCTIONS))}"
    return ""


def _syntax(text: str) -> str:
    """The library's first complaint, with line and column inside the expression."""
    found = re.search(r"<input>:(\d+):(\d+): (.*)", text)
    if found is None:
        return clean_text(text.partition("\n")[0], 200)
    return clean_text(f"line {found[1]}, column {found[2]}: {found[3]}", 200)


def answer(request: bytes) -> bytes:
    """The first rule that applies to an object. `request` is JSON {"rules": [[when, messageExpression], ...], "object":
    {...}}, the answer {"rule": index or null, "message": text, "error": text}; with an error, `rule` is where."""
    place: int | None = None
    try:
        asked = json.loads(request)
        variables = {VARIABLE: asked["object"]}
        for place, (when, message) in enumerate(asked["rules"]):
            found = _program(when).execute(variables)
            if not isinstance(found, bool):
                return _said(place, error=f"`when` gives {_kind(found)}, not true or false")
            if found:
                return _said(place, _message(message, variables))
    except Exception as error:  # noqa: BLE001 - whatever a stranger's expression or object raises is its answer
        return _said(place, error=_words(error))
    return _said(None)


def _message(expression: str, variables: dict[str, Any]) -> str:
    """The message that an expression gives. One that fails leaves the rule's own: the verdict does not hang on it."""
    if not expression:
        return ""
    try:
        found = _program(expression).execute(variables)
    except Exception as error:  # noqa: BLE001 - see above
        return f"(its message could not be made: {_words(error)})"
    return clean_text(found, MESSAGE_LENGTH_MAX) if isinstance(found, str) else f"(its message is {_kind(found)})"


def _said(rule: int | None, message: str = "", error: str = "") -> bytes:
    return json.dumps({"rule": rule, "message": message, "error": error}, separators=(",", ":")).encode()


def _kind(value: Any) -> str:
    names = {"str": "a string", "int": "a number", "float": "a number", "list": "a list", "dict": "a map"}
    return names.get(type(value).__name__, "nothing" if value is None else f"a {type(value).__name__}")


def _words(error: Exception) -> str:
    if isinstance(error, KeyError):
        return clean_text(f"there is no field {error}: ask has() for it first", MESSAGE_LENGTH_MAX)
    if isinstance(error, MemoryError):
        return "it needs too much memory"
    text = str(error).partition(". ")[0]
    return clean_text(f"{type(error).__name__}: {text}", MESSAGE_LENGTH_MAX)
