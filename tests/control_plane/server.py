"""The real control plane as tests use it, by one name: `reconciler/demo/control_plane/plane.py` is what starts it.

Example:

    with server.start(build.locate(), controller_manager=False) as plane:
        status, version = server.call(plane, "GET", "/version")
"""

from __future__ import annotations

import os
from pathlib import Path

from reconciler.demo.control_plane.plane import (
    ADMINISTRATOR,
    CRDS_PATH,
    FLINK_RESOURCES,
    NAMED_USERS,
    ControlPlane,
    ControlPlaneError,
    attach,
    call,
    free_ports,
    install_crd,
    install_crds,
    start,
    wait_until_listable,
    write_kubeconfig,
)

__all__ = [
    "ADMINISTRATOR",
    "CHECKOUT",
    "CRDS_PATH",
    "FLINK_RESOURCES",
    "NAMED_USERS",
    "ControlPlane",
    "ControlPlaneError",
    "attach",
    "call",
    "free_ports",
    "install_crd",
    "install_crds",
    "required_by_environment",
    "start",
    "wait_until_listable",
    "write_kubeconfig",
]

CHECKOUT = Path(__file__).resolve().parent.parent.parent


def required_by_environment() -> bool:
    """Whether an absent control plane is a failure (in CI) rather than a reason to skip."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")
