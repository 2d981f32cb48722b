"""Manifests as YAML that kubectl reads back as the same values.

A string that would be read as something else (`on`, `1e3`, `017`) is quoted, by the same rules that read it.

    >>> print(dump([{"a": "on", "b": 1}]), end="")
    a: "on"
    b: 1
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from reconciler.core.yaml_scalars import ScalarError, resolve


class _Dumper(yaml.SafeDumper):
    """Plain style for what reads back as itself, no anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # PyYAML's hook
        return True


def _represent_string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # A block keeps a script or a properties file readable; YAML has no block for other white space at a line's end.
    lines = text.split("\n")
    if len(lines) > 1 and text.isascii() and not any(line != line.rstrip() or "\t" in line for line in lines):
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if _is_plain(text) else '"')


def _is_plain(text: str) -> bool:
    try:
        return isinstance(resolve(text), str) and text not in ("<<", "=") and text.isprintable()
    except ScalarError:
        return False


_Dumper.add_representer(str, _represent_string)


def dump(documents: Iterable[Any]) -> str:
    """`documents` as one YAML stream, separated by `---`."""
    parts = [
        yaml.dump(document, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=10_000)
        for document in documents
    ]
    return "---\n".join(parts)
