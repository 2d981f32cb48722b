"""Which files decide together what applications there are: the least that has to be looked at when a file changes.

A *plot* is what stands directly below a directory of `fleet.yaml`'s `applications`: a directory with all below it, or
one file. Which applications a plot holds is decided by its own files alone, for an application takes plain objects from
its own directory and from those below it, unless

    - a component names a directory in another plot,
    - a broken file directly in the directory of `applications` casts doubt on all directories beside it,
    - it holds a directory of another tool.

Such a plot is not *closed*, and the fleet has to be looked at as a whole. A file that holds nothing but whole
Applications which name no directories, before the change and after it, needs not even its plot: what other files see of
it, that there is an Application in its directory, stays as it was.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable

from reconciler.core.documents import Application
from reconciler.core.fleet_candidates import referenced_by, within
from reconciler.core.fleet_files import Held, Selected
from reconciler.core.fleet_model import Reading, Standing


def foreign_directories(selected: Selected, reading: Reading) -> frozenset[str] | None:
    """The directories that components name outside their own plots; None if the fleet cannot be divided into plots, for
    a directory of `applications` lies within another."""
    roots = set(selected.roots.values())
    if any(root != other and (not other or within(root, other)) for root in roots for other in _above(root, roots)):
        return None
    found: set[str] = set()
    for path in selected.roots.keys() & reading.held.keys():
        names = _names(reading.held[path])
        if names:
            plot = plot_of(path, selected.roots[path])
            found.update(name for name in names if not within(name, plot))
    return frozenset(found)


def _above(directory: str, roots: Collection[str]) -> Iterable[str]:
    while directory:
        directory = posixpath.dirname(directory)
        if directory in roots:
            yield directory


def plot_of(path: str, root: str) -> str:
    """The plot of a file that was found below `root`."""
    start = len(root) + 1 if root else 0
    end = path.find("/", start)
    return path if end < 0 else path[:end]


def scope_of(paths: Collection[str], standing: Standing, selected: Selected, reading: Reading) -> frozenset[str] | None:
    """The files that have to be looked at together when `paths` changed, those that are gone included; None if that
    cannot be said. `standing` is how it was before, `selected` and `reading` how it is now."""
    scope: set[str] = set()
    plots: dict[str, str] = {}
    for path in paths:
        root = selected.roots.get(path, standing.selected.roots.get(path))
        if root is None:
            continue
        if _stands_alone(path, standing.reading) and _stands_alone(path, reading):
            scope.add(path)
        else:
            plots[plot_of(path, root)] = root
    if not plots:
        return frozenset(scope)
    below = tuple(f"{plot}/" for plot in plots)
    members = [path for path in reading.held if path in plots or path.startswith(below)]
    members += [path for path in paths if path not in reading.held and path in standing.reading.held]
    inside = [path for path in members if path in selected.roots or path in standing.selected.roots]
    of_path = {path: plot_of(path, selected.roots.get(path, standing.selected.roots.get(path, ""))) for path in inside}
    directories = {plot for path, plot in of_path.items() if path != plot}
    for plot, root in plots.items():
        if not _is_closed(plot, root, plot in directories, standing, reading):
            return None
    for path, plot in of_path.items():
        for held in (reading.held.get(path, ()), standing.reading.held.get(path, ())):
            if not all(within(name, plot) for name in _names(held)):
                return None
    return frozenset(scope.union(inside))


def _stands_alone(path: str, reading: Reading) -> bool:
    """True if the file holds nothing but whole Applications that name no directories, and at least one."""
    held = reading.held.get(path)
    if not held or path in reading.unread or path in reading.held_back:
        return False
    return all(isinstance(entry.parsed.value, Application) for entry in held) and not _names(held)


def _is_closed(plot: str, root: str, is_directory: bool, standing: Standing, reading: Reading) -> bool:
    """True if no file outside the plot has a say in what is in it, nor the other way round; what components in it name
    is not asked here."""
    if any(within(name, plot) or within(plot, name) for name in standing.foreign):
        return False
    if any(within(directory, plot) for directory in standing.selected.unsupported):
        return False
    unread = standing.reading.unread | reading.unread
    return plot not in unread and not (is_directory and any(posixpath.dirname(path) == root for path in unread))


def _names(held: Iterable[Held]) -> set[str]:
    """The directories that the Applications among the documents name."""
    names: set[str] = set()
    for entry in held:
        if isinstance(entry.parsed.value, Application):
            names |= referenced_by(entry.parsed.value)
    return names
