"""A short chaos, from a fixed seed: the long one is `make soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import Chaos
from tests.control_plane.build import Assets
from tests.control_plane.server import start

SEED = 11


@pytest.mark.controlplane
def test_what_has_to_hold_holds_for_a_while(assets: Assets, tmp_path: Path) -> None:
    """On a control plane of its own: its API server and its etcd have outages."""
    with start(assets) as plane:
        result = Chaos(plane, tmp_path, SEED, "chaos").run(seconds=20)
    print(result)
    assert result["violations"] == 0
    assert result["writes"] > 0
