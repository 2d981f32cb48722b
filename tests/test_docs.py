"""The pages say what is: links lead somewhere, commands, codes and files exist, examples parse, and nothing in the
checkout speaks of one machine.

What a page says of settings, metrics and fields is checked beside those (`tests/core/test_settings.py`,
`tests/integration/test_metrics.py`, `tests/core/test_spec_pages.py`).
"""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

from bench import report
from reconciler.cli.main import parser
from reconciler.core.parse import parse
from reconciler.core.problems import Severity
from reconciler.core.yaml_kube import load

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "reconciler"
#: Directories that hold what tools made, not what people wrote.
NOT_OURS = {".git", ".venv", ".hypothesis", "build", "dist", "__pycache__"}
OUR_GROUPS = ("reconciler.dev/", "core.oam.dev/")
#: What only one machine or one site knows: where a checkout or a home is, where packages come from. The project speaks
#: of itself and of example.com.
ONE_MACHINE = re.compile(
    rf"{re.escape(str(ROOT))}\b|(?<![\w.-])/(?:root|home/\w+|Users/\w+|workspace|builds)\b|(?i:index-url)\s*[=:]\s*\S*://"
)
#: Files that name what is installed: by version and hash, never by address.
LOCKS = {".lock", ".mod", ".sum"}
TEXT = {".md", ".py", ".yaml", ".yml", ".toml", ".lock", ".json", ".mod", ".sum", ".txt", ""}


@cache
def files() -> tuple[Path, ...]:
    """Every text file that people wrote."""
    return tuple(
        path
        for path in sorted(ROOT.rglob("*"))
        if path.is_file()
        and path.suffix in TEXT
        and not (NOT_OURS | {part for part in path.relative_to(ROOT).parts if part.endswith("_cache")})
        & set(path.relative_to(ROOT).parts)
        and not any(part.endswith(".egg-info") for part in path.parts)
    )


@cache
def pages() -> tuple[Path, ...]:
    """Every Markdown page."""
    return tuple(path for path in files() if path.suffix == ".md")


def named(path: Path) -> str:
    """For messages."""
    return path.relative_to(ROOT).as_posix()


def fenced(text: str, *languages: str) -> Iterator[str]:
    """The contents of the fenced blocks in `languages`."""
    for language, content in re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        if language in languages:
            yield content


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


# ---- links and names ---------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    titles = re.findall(r"^#+ (.+)$", prose(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path, root: Path = ROOT) -> list[str]:
    """Links of `page` that lead nowhere, or out of the checkout."""
    text = page.read_text(encoding="utf-8")
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / unquote(path)).resolve() if path else page
        if not found.exists() or root not in (found, *found.parents):
            wrong.append(f"{page.name}: {target} leads nowhere")
        elif anchor and found.suffix == ".md" and anchor not in anchors(found.read_text(encoding="utf-8")):
            wrong.append(f"{page.name}: {target} has no such heading")
    return wrong


def test_every_link_leads_somewhere() -> None:
    assert [wrong for page in pages() for wrong in broken_links(page)] == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# One, two\n")
    page = tmp_path / "page.md"
    page.write_text("[a](other.md#one-two) [b](other.md#three) [c](gone.md) [d](../x) [e](#f)\n```\n[f](g)\n```\n# F\n")
    assert [wrong.split()[1] for wrong in broken_links(page, tmp_path)] == ["other.md#three", "gone.md", "../x"]
    assert list(fenced("```yaml\na: 1\n```\n```\nb\n```\n", "yaml")) == ["a: 1\n"]


def test_every_page_is_found_from_the_index() -> None:
    """A page that nothing links to is a page that nobody reads."""
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", prose(page.read_text(encoding="utf-8"))):
            found = (page.parent / unquote(target)).resolve()
            if found.suffix == ".md" and found.exists():
                waiting.append(found)
    lost = {page for page in pages() if page.is_relative_to(ROOT / "docs")} - seen
    assert sorted(named(page) for page in lost) == []


def test_files_that_pages_name_are_there() -> None:
    wrong = []
    for page in pages():
        for span in re.findall(r"`([^`\n]+)`", prose(page.read_text(encoding="utf-8"))):
            if re.fullmatch(r"(core|shell|sim|web|cli|demo|tests|policies|bench|deploy|reconciler)/[\w./*-]*", span):
                pattern = span.rstrip("/")
                if not any(list(base.glob(pattern)) for base in (ROOT, PACKAGE)):
                    wrong.append(f"{named(page)}: there is no {span}")
    assert wrong == []


@cache
def names_of_tests() -> set[str]:
    """The names of all test functions."""
    return {
        name
        for path in files()
        if path.suffix == ".py" and path.is_relative_to(ROOT / "tests")
        for name in re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }


def named_tests(page: Path) -> list[str]:
    """The tests that a page says show something."""
    return re.findall(r"`(test_\w+)`", prose(page.read_text(encoding="utf-8")))


def test_tests_that_pages_name_are_there() -> None:
    wrong = [
        f"{named(page)}: there is no {name}"
        for page in pages()
        for name in named_tests(page)
        if name not in names_of_tests()
    ]
    assert wrong == []


def test_a_test_that_is_not_there_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("shown by `test_tests_that_pages_name_are_there`, `test_of_nothing`\n```\n`test_in_a_block`\n```\n")
    assert [name for name in named_tests(page) if name not in names_of_tests()] == ["test_of_nothing"]


def test_every_row_of_the_contract_names_a_test() -> None:
    page = (ROOT / "docs/design/0007-contract-with-the-api-server.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("|") and not re.match(r"\|(-|\s*asked)", line)]
    assert len(rows) > 40
    assert [row for row in rows if not re.search(r"\| `test_\w+`", row)] == []


def test_nothing_speaks_of_one_machine() -> None:
    wrong = [
        f"{named(path)}:{number}: {line.strip()[:100]}"
        for path in files()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1)
        if ONE_MACHINE.search(line) or (path.suffix in LOCKS and "://" in line)
    ]
    assert wrong == []


# ---- commands ----------------------------------------------------------------------------------------------------


def commands(of: argparse.ArgumentParser, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command with its verbs: ("diff",), ("rollout",), ("rollout", "pause")."""
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield (*prefix, name)
                yield from commands(child, (*prefix, name))


def test_every_command_is_described() -> None:
    page = (ROOT / "docs/guides/commands.md").read_text(encoding="utf-8")
    missing = [" ".join(words) for words in commands(parser()) if not re.search(rf"\b{' '.join(words)}\b", page)]
    assert missing == []


def shown_commands() -> list[tuple[str, str]]:
    """(page, command line) of every `reconciler ...` that a page shows at a prompt."""
    return [
        (named(page), line)
        for page in pages()
        for block in fenced(page.read_text(encoding="utf-8"), "", "console", "sh", "bash", "shell", "text")
        for line in re.findall(r"^\$ (?:\S*/)?(reconciler .*)$", block.replace("\\\n", " "), flags=re.MULTILINE)
    ]


@pytest.mark.parametrize(("page", "line"), shown_commands())
def test_a_command_that_a_page_shows_is_understood(page: str, line: str) -> None:
    words = shlex.split(re.split(r" (?:\||>|&&|;)", line)[0], comments=True)[1:]
    try:
        parser().parse_args(words)
    except SystemExit as ended:
        if ended.code:
            pytest.fail(f"{page}: {line}")


def test_every_make_target_that_a_page_names_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    wrong = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        shown = re.findall(r"`make ([a-z -]+)`", prose(text)) + re.findall(r"^\$ make ([a-z -]+)", text, re.MULTILINE)
        wrong += [f"{named(page)}: make {word}" for words in shown for word in words.split() if word not in targets]
    assert wrong == []
    described = set(re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.MULTILINE))
    assert described == targets, "a target without a help text"


def test_the_readme_begins_with_its_two_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first = next(fenced(readme, "console"))
    assert first.startswith("$ git clone ")
    assert "$ make demo" in first
    assert readme.index(first) < 700


# ---- examples and tables -----------------------------------------------------------------------------------------


def examples() -> list[tuple[str, str]]:
    """(page, YAML) of every example."""
    return [(named(page), block) for page in pages() for block in fenced(page.read_text(encoding="utf-8"), "yaml")]


@pytest.mark.parametrize(("page", "example"), examples())
def test_an_example_means_what_it_says(page: str, example: str) -> None:
    loaded = load(page, example.encode())
    assert loaded.problems == ()
    for document in loaded.documents:
        value = document.value
        if isinstance(value, dict) and str(value.get("apiVersion", "")).startswith(OUR_GROUPS):
            errors = [problem for problem in parse(document).problems if problem.severity is Severity.ERROR]
            assert errors == []


def reason_codes() -> Iterator[tuple[str, str]]:
    """(file, code) of every reason that core or shell gives, but for those of health (docs/guides/health.md)."""
    for path in sorted([*PACKAGE.glob("core/*.py"), *PACKAGE.glob("shell/*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or path.name.startswith("health"):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in ("Reason", "reason", "SourceError") and node.args and isinstance(node.args[0], ast.Constant):
                yield path.relative_to(ROOT).as_posix(), str(node.args[0].value)


def test_every_reason_code_is_in_the_glossary() -> None:
    glossary = set(re.findall(r"`([A-Z]\w+)`", (ROOT / "docs/GLOSSARY.md").read_text(encoding="utf-8")))
    codes = set(reason_codes())
    assert len(codes) > 80
    assert sorted(f"{code} ({path})" for path, code in codes if code not in glossary) == []


def test_the_table_of_benchmarks_is_that_of_the_results() -> None:
    assert report.table() in report.PAGE.read_text(encoding="utf-8"), "run `python -m bench`, or bench.report.update()"
