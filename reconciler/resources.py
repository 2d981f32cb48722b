"""The data that comes with the program: the shipped policies and the sample repository.

A wheel carries both inside the package (`reconciler/data`); an editable install and a checkout have them beside it.
This module finds them in either, and is the only one that knows.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from reconciler.core.catalogue import Catalogue, load_catalogue

_PACKAGE = Path(__file__).resolve().parent


class MissingDataError(RuntimeError):
    """The installation is incomplete."""


def _find(name: str) -> Path:
    for candidate in (_PACKAGE / "data" / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise MissingDataError(f"this installation lacks its {name} directory: install the package again")


def policies_directory() -> Path:
    """Where the shipped policies are."""
    return _find("policies")


def sample_directory() -> Path:
    """Where the sample repository is."""
    return _find("sample-repo")


@cache
def catalogue() -> Catalogue:
    """The shipped catalogue, read once."""
    root = policies_directory()
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.yaml"))}
    return load_catalogue(files)
