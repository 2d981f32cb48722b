"""The house's rules about code, checked on the syntax tree: who may import whom, and what only one place may name.

    cli, web -> shell -> core        sim implements shell's ports; core, shell and web never know of it

The core knows no I/O, clock, thread, task, random source or database; in core/ and shell/ those are named where
`MAY_NAME` says so, with the reason, and nowhere else. A rule that is broken is reported as `file:line: what`.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "reconciler"

#: layer -> layers it may import. A layer is a directory of the package, or a module beside them.
LAYERS: dict[str, frozenset[str]] = {
    "core": frozenset({"core"}),
    "resources": frozenset({"core"}),
    "socket_path": frozenset(),
    "settings_table": frozenset({"core"}),
    "settings_values": frozenset({"core", "shell"}),
    "settings": frozenset({"core", "shell", "settings_table", "settings_values"}),
    "shell": frozenset({"core", "shell"}),
    "sim": frozenset({"core", "shell", "sim", "resources"}),
    "web": frozenset({"core", "shell", "web", "resources", "settings", "settings_values", "socket_path"}),
    # bootstrap wires everything, and is the one that starts the web server.
    "bootstrap": frozenset({"core", "shell", "web", "resources", "settings"}),
    # The demo is an entry point like the commands: the daemon on simulated clusters or on control planes.
    "demo": frozenset(
        {"core", "shell", "web", "sim", "demo", "bootstrap", "resources", "settings", "settings_values", "socket_path"}
    ),
    "cli": frozenset(
        {
            "core",
            "shell",
            "web",
            "sim",
            "demo",
            "cli",
            "bootstrap",
            "resources",
            "settings",
            "settings_table",
            "socket_path",
        }
    ),
}

#: What the core may import of the standard library: values and text, nothing that acts. yaml and deepdiff beside it,
#: and cel, which reads an expression of bounded length and gives a function of values.
CORE_LIBRARIES = frozenset(
    {
        "__future__", "array", "base64", "binascii", "bisect", "cel", "collections", "copy", "dataclasses", "datetime",
        "decimal", "deepdiff", "difflib", "enum", "fractions", "functools", "hashlib", "heapq", "itertools", "json",
        "marshal", "math", "operator", "posixpath", "re", "string", "struct", "textwrap", "types", "typing",
        "unicodedata", "yaml", "zlib",
    }
)  # fmt: skip
#: Modules that are a clock, a random source, a thread or another process.
BANNED_MODULES = frozenset({"time", "random", "uuid", "secrets", "threading", "multiprocessing", "subprocess"})
#: Calls that read the wall clock or start a task on their own.
BANNED_CALLS = frozenset({"create_task", "ensure_future", "utcnow", "today", "urandom", "getrandom"})

#: (file, name) -> why it may be named there. Everything else in core/ and shell/ may not.
MAY_NAME = {
    ("shell/scope.py", "create_task"): "the one place at which tasks start, in order",
    ("shell/git_command.py", "subprocess"): "the one place at which git is started",
    ("shell/worker.py", "subprocess"): "the one place at which evaluators of strangers' expressions are started",
}

FILE_LINES_MAX = 450
TEST_FILE_LINES_MAX = 500  # tables of cases are long and simple
FUNCTION_LINES_MAX = 80


@dataclass(frozen=True, slots=True)
class Source:
    """One parsed file. `name` is its path inside the package, or inside the checkout for what is outside of it."""

    path: Path
    name: str
    tree: ast.Module
    lines: int

    @property
    def layer(self) -> str:
        """The layer the file belongs to."""
        first, _, rest = self.name.partition("/")
        return first if rest else first.removesuffix(".py")

    def at(self, node: ast.AST, what: str) -> str:
        """A finding."""
        return f"{self.path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}: {what}"


@cache
def package() -> tuple[Source, ...]:
    """All modules of the package."""
    return tuple(_read(path, PACKAGE) for path in sorted(PACKAGE.rglob("*.py")))


@cache
def everything() -> tuple[Source, ...]:
    """The package, the tests and the benchmarks."""
    paths = [path for top in ("reconciler", "tests", "bench") for path in sorted((ROOT / top).rglob("*.py"))]
    return tuple(_read(path, ROOT) for path in paths)


def _read(path: Path, base: Path) -> Source:
    text = path.read_text(encoding="utf-8")
    return Source(path, path.relative_to(base).as_posix(), ast.parse(text), text.count("\n"))


def imports(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    """Every module that is imported anywhere in `tree`, `from package import module` included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield node, node.module or ""
            for alias in node.names:
                yield node, f"{node.module}.{alias.name}"


def types_only(tree: ast.AST) -> set[int]:
    """Lines of imports that only a type checker sees."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            lines |= {
                inner.lineno for statement in node.body for inner in ast.walk(statement) if hasattr(inner, "lineno")
            }
    return lines


def own_layer_of(module: str) -> str | None:
    """The layer of one of our modules, None for others and for the package itself (its version)."""
    parts = module.split(".")
    return parts[1] if parts[0] == "reconciler" and len(parts) > 1 and parts[1] in LAYERS else None


def test_every_module_belongs_to_a_layer() -> None:
    unknown = [source.name for source in package() if source.layer not in LAYERS and source.layer != "__init__"]
    assert not unknown, f"say in LAYERS what these may import: {unknown}"


def test_imports_point_one_way() -> None:
    wrong = [
        source.at(node, f"{source.layer} must not import {layer}")
        for source in package()
        for node, module in imports(source.tree)
        if (layer := own_layer_of(module)) is not None and layer not in LAYERS.get(source.layer, frozenset())
    ]
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_the_core_imports_values_only() -> None:
    wrong = [
        source.at(node, f"the core must not import {module}")
        for source in package()
        if source.layer == "core"
        for node, module in imports(source.tree)
        if module.split(".")[0] not in CORE_LIBRARIES | {"reconciler"}
    ]
    assert not wrong, "\n".join(wrong)


def test_the_core_does_nothing_but_think() -> None:
    """No coroutine, no file, no printing, no global that is changed."""
    wrong = []
    for source in package():
        if source.layer != "core":
            continue
        for node in ast.walk(source.tree):
            if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith | ast.Global):
                wrong.append(source.at(node, type(node).__name__))
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("open", "print", "input")
            ):
                wrong.append(source.at(node, f"{node.func.id}()"))
    assert not wrong, "\n".join(wrong)


def named(source: Source) -> Iterator[tuple[ast.AST, str]]:
    """Everything in `source` that is a clock, a random source, a thread, a process or a task started on its own."""
    hidden = types_only(source.tree)
    for statement, module in imports(source.tree):
        root = module.split(".")[0]
        if root in BANNED_MODULES and statement.lineno not in hidden:
            yield statement, root
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute):
            if node.attr in BANNED_CALLS:
                yield node, node.attr
            elif node.attr == "now" and ast.unparse(node.value) in (
                "datetime",
                "dt.datetime",
                "datetime.datetime",
                "dt.date",
            ):
                yield node, "datetime.now"


def test_only_the_wiring_names_time_chance_and_threads() -> None:
    wrong = {
        source.at(node, f"{name} (only bootstrap.py may, or add the reason to MAY_NAME)")
        for source in package()
        if source.layer in ("core", "shell")
        for node, name in named(source)
        if (source.name, name) not in MAY_NAME
    }
    assert not wrong, "\n".join(sorted(wrong))


def test_exceptions_are_still_needed() -> None:
    used = {(source.name, name) for source in package() for _, name in named(source)}
    assert sorted(set(MAY_NAME) - used) == [], "remove them from MAY_NAME"


def test_nothing_iterates_a_bare_set() -> None:
    """The order of a set is not the same in two processes: what is made by looping over one would not be, either."""
    wrong = [
        source.at(iterated, f"loops over a set: sorted({ast.unparse(iterated)[:60]})")
        for source in package()
        for iterated in bare_sets(source.tree)
    ]
    assert not wrong, "\n".join(wrong)


def bare_sets(tree: ast.AST) -> Iterator[ast.expr]:
    """Sets that something in `tree` takes in order."""
    for node in ast.walk(tree):
        yield from (iterated for iterated in _iterated(node) if _is_set(iterated))


def _iterated(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.For | ast.AsyncFor):
        yield node.iter
    # What becomes a set or a dict is not made in an order that anybody sees.
    if isinstance(node, ast.ListComp | ast.GeneratorExp):
        yield from (generator.iter for generator in node.generators)
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("list", "tuple", "enumerate")
    ):
        yield from node.args[:1]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "join":
        yield from node.args[:1]


def _is_set(node: ast.expr) -> bool:
    """True if the expression is a set for sure: a display, a comprehension, a call of set, or sets combined."""
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in ("set", "frozenset")
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor):
        return _is_set(node.left) or _is_set(node.right)
    return False


# ---- what a command loads ----------------------------------------------------------------------------------------

LOADED = """
import contextlib, io, json, sys
from reconciler.cli.main import main
out = io.StringIO()
with contextlib.redirect_stdout(out):
    try:
        status = main(json.loads(sys.argv[1]))
    except SystemExit as ended:
        status = ended.code
print(json.dumps({"status": status or 0, "said": len(out.getvalue()), "modules": sorted(sys.modules)}))
"""
HEAVY = ("kubernetes", "sqlalchemy", "aiohttp", "alembic", "apscheduler", "prometheus_client")


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["validate", str(ROOT / "sample-repo")], ["validate", "--help"]],
    ids=["help", "validate", "help of a command"],
)
def test_a_light_command_loads_no_heavy_library(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, json.dumps(arguments)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["status"] == 0
    assert told["said"] > 0
    assert [name for name in HEAVY if name in told["modules"]] == []


# ---- the house style that can be counted -------------------------------------------------------------------------


def test_every_module_and_public_name_says_what_it_is() -> None:
    wrong = []
    for source in package():
        if source.path.name == "__init__.py" and not source.tree.body:
            continue
        if not ast.get_docstring(source.tree):
            wrong.append(source.at(source.tree, "the module has no docstring"))
        for node in source.tree.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if not node.name.startswith("_") and not ast.get_docstring(node):
                wrong.append(source.at(node, f"{node.name} has no docstring"))
    assert not wrong, "\n".join(wrong)


def test_files_and_functions_stay_readable() -> None:
    wrong = []
    for source in everything():
        lines_max = TEST_FILE_LINES_MAX if source.name.startswith("tests/") else FILE_LINES_MAX
        if source.lines > lines_max:
            wrong.append(f"{source.name}: {source.lines} lines, at most {lines_max}: split it by question")
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    wrong.append(source.at(node, f"{node.name} has {lines} lines, at most {FUNCTION_LINES_MAX}"))
    assert not wrong, "\n".join(wrong)


def test_nothing_is_left_for_later() -> None:
    """No marks of unfinished work, and no error that is swallowed."""
    wrong = []
    for source in everything():
        if source.path == Path(__file__):
            continue
        for number, line in enumerate(source.path.read_text(encoding="utf-8").splitlines(), start=1):
            if any(mark in line for mark in ("TODO", "FIXME", "XXX", "NotImplementedError")):
                wrong.append(f"{source.name}:{number}: {line.strip()[:80]}")
        wrong += [source.at(node, "an error of any kind is swallowed") for node in swallowed(source.tree)]
    assert not wrong, "\n".join(wrong)


def swallowed(tree: ast.AST) -> Iterator[ast.ExceptHandler]:
    """Handlers that catch everything and do nothing."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ExceptHandler)
            and _catches_all(node)
            and all(isinstance(s, ast.Pass) for s in node.body)
        ):
            yield node


def _catches_all(handler: ast.ExceptHandler) -> bool:
    return handler.type is None or ast.unparse(handler.type) in ("Exception", "BaseException")


# ---- the rules find what they look for ---------------------------------------------------------------------------


def _source(text: str, name: str = "core/x.py") -> Source:
    return Source(PACKAGE / name, name, ast.parse(text), text.count("\n"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import time", ["time"]),
        ("from random import Random", ["random", "random"]),
        ("if TYPE_CHECKING:\n    from random import Random", []),
        ("def f():\n    import uuid", ["uuid"]),
        ("asyncio.create_task(f())", ["create_task"]),
        ("loop.create_task(f())", ["create_task"]),
        ("datetime.now(UTC)", ["datetime.now"]),
        ("self._clock.now()", []),
        ("os.urandom(3)", ["urandom"]),
    ],
)
def test_a_banned_name_is_found(text: str, found: list[str]) -> None:
    assert [name for _, name in named(_source(text))] == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("for x in {1, 2}: pass", 1),
        ("for x in set(a) | b: pass", 1),
        ("[x for x in a - set(b)]", 1),
        ("', '.join({x for x in a})", 1),
        ("list(frozenset(a))", 1),
        ("for x in sorted({1, 2}): pass", 0),
        ("{x for x in set(a)}", 0),
        ("any_of = x in {1, 2}", 0),
    ],
)
def test_a_loop_over_a_set_is_found(text: str, found: int) -> None:
    assert len(list(bare_sets(ast.parse(text)))) == found


def test_a_swallowed_error_is_found() -> None:
    assert list(swallowed(ast.parse("try:\n    f()\nexcept Exception:\n    pass")))
    assert not list(swallowed(ast.parse("try:\n    f()\nexcept KeyError:\n    pass")))
    assert [
        layer
        for _, module in imports(ast.parse("from reconciler.sim.world import World"))
        if (layer := own_layer_of(module))
    ] == ["sim", "sim"]
