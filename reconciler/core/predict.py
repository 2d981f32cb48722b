"""What a live object would look like after an apply, as far as Flink's class of the change needs to know it.

predicted(desired, live)["spec"]["job"]["parallelism"]     # what is declared, over what only live has
"""

from __future__ import annotations

from typing import Any

from reconciler.core.explain_diff import changes
from reconciler.core.flink_config import flatten, is_flink
from reconciler.core.model import Manifest


def predicted(desired: Manifest, live: Manifest) -> Manifest:
    """The live object as it would be after applying `desired`, as far as Flink's class of the change needs it: what
    only live has stays, unless it is recorded as ours and no longer declared."""
    if not is_flink(desired):
        return desired
    spec, wanted = live.get("spec") or {}, desired.get("spec") or {}
    merged = _merged(spec, wanted)
    if "flinkConfiguration" in merged:
        merged["flinkConfiguration"] = {
            **flatten(spec.get("flinkConfiguration")),
            **flatten(wanted.get("flinkConfiguration")),
        }
    removed = [change.path for change in changes(desired, live) if change.op == "remove"]
    for path in removed:
        _without(merged, [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[2:]])
    return {**live, "spec": merged}


def _merged(live: Any, desired: Any) -> Any:
    """`desired` laid over `live`, map by map; a copy wherever something could be changed later."""
    if isinstance(live, dict) and isinstance(desired, dict):
        return {name: _merged(live.get(name), desired.get(name)) for name in {**live, **desired}}
    chosen = live if desired is None else desired
    return {name: _merged(value, None) for name, value in chosen.items()} if isinstance(chosen, dict) else chosen


def _without(spec: Any, names: list[str]) -> None:
    """Take the value at `names` out of `spec`, a copy of ours; a flattened configuration key counts as one name."""
    holder = spec
    for name in names[:-1]:
        holder = holder.get(name) if isinstance(holder, dict) else None
    if isinstance(holder, dict) and names:
        holder.pop(names[-1], None)
