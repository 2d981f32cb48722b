"""Drawing values: the interesting ones, from whatever random source a test has.

The source is Hypothesis' (`random_source`, which it can shrink and repeat) or a plain `Random` with a printed seed (the
soak). Values are chosen for what has been misjudged elsewhere: quantities and numbers that are written in several ways,
booleans beside 1 and 0, empty and false values, texts that look like something else.

    Draw(Random(1)).pick("1000m", "1", "0.5")
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import strategies as st

#: Hypothesis' random numbers: every choice is one that it may shrink.
random_source = st.randoms(use_true_random=False)

TEXTS = (
    "a", "b", "", "true", "false", "0", "1", "1.0", "01", "1e3", "1000m", "null", "yes", "a b", "two\nlines\n", " a ",
    "é", "日本語", "e\u0301", "x" * 70, '"quoted"', "back\\slash", "50%", "1Gi", "1024Mi",
)  # fmt: skip
LABEL_VALUES = ("", "a", "b", "1", "true", "1.0", "A-b_c.d")
LABEL_NAMES = ("a", "b", "c", "app.kubernetes.io/name", "example.com/x")
CPU = ("1", "1000m", "0.5", "500m", "1.0", "2", "1e0", "2000m", 1, 2, 0.5)
MEMORY = ("1Gi", "1024Mi", "1073741824", "512Mi", "0.5Gi", "1G", "1e9", "1000M", 1073741824, 0)
NUMBERS = (0, 1, 2, 3, 5, 7)


class Draw:
    """Random choices, worded."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def pick(self, *values: Any) -> Any:
        """One of `values`; the first is the simplest."""
        return values[self.random.randint(0, len(values) - 1)]

    def number(self, least: int, most: int) -> int:
        """A whole number, both ends included."""
        return self.random.randint(least, most)

    def chance(self, percent: int) -> bool:
        """True that often. No is the simpler answer."""
        return self.random.randint(0, 99) >= 100 - percent

    def some(self, percent: int = 40, **parts: Callable[[], Any]) -> dict[str, Any]:
        """Each part with that probability."""
        return {name: part() for name, part in parts.items() if self.chance(percent)}

    def subset(self, *values: Any) -> list[Any]:
        """Some of `values`, in any order."""
        chosen = [value for value in values if self.chance(50)]
        if len(chosen) > 1 and self.chance(30):
            chosen.reverse()
        return chosen

    def text(self) -> str:
        """A string that may look like something else."""
        return str(self.pick(*TEXTS))

    def texts(self) -> list[str]:
        """An atomic list of strings, at times empty or with equal items."""
        return [self.text() for _ in range(self.number(0, 3))]

    def map(self) -> dict[str, str]:
        """A map of strings, at times empty."""
        return {self.pick("a", "b", "c.d", "e_f"): self.text() for _ in range(self.number(0, 3))}

    def labels(self) -> dict[str, str]:
        """Valid labels, at times empty or with empty values."""
        return {self.pick(*LABEL_NAMES): self.pick(*LABEL_VALUES) for _ in range(self.number(0, 3))}

    def free(self, depth: int = 2) -> Any:
        """Any JSON value, as a subtree without a schema may hold."""
        kinds = (
            ("text", "number", "boolean", "float", "big", "null") if not depth else ("map", "list", "text", "number")
        )
        match self.pick(*kinds, "text"):
            case "map":
                return {self.pick("a", "b", "c.d", ""): self.free(depth - 1) for _ in range(self.number(0, 3))}
            case "list":
                return [self.free(depth - 1) for _ in range(self.number(0, 3))]
            case "number":
                return self.pick(*NUMBERS)
            case "boolean":
                return self.pick(False, True)
            case "float":
                return self.pick(0.5, 1.0, 1e3, -0.0, 1e21, 1.5e-7)
            case "big":
                return self.pick(2**53 + 1, 2**63 - 1, -(2**63))
            case "null":
                return None
        return self.text()
