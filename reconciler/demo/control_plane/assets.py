"""Where a control plane's programs are: nothing is built or downloaded here.

`make control-plane` in a checkout builds kube-apiserver and etcd and fetches the Flink operator's CRDs, both into a
cache of the user's. They are looked for where somebody says, else where KUBEBUILDER_ASSETS says, else in that cache;
the CRDs beside the programs, else in the cache.

    find(Path("/opt/kubebuilder/bin")).apiserver        # AssetsMissingError says in one line what is missing
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FLINK_API_SHA256 = "b1f44814e17514fa8395c61b329a3ee9087123a5bda5b21fe1a495d5182c30b6"
FLINK_CRD_FILES = (
    "flinkdeployments.flink.apache.org-v1.yml",
    "flinksessionjobs.flink.apache.org-v1.yml",
    "flinkstatesnapshots.flink.apache.org-v1.yml",
)
PROGRAMS = ("kube-apiserver", "etcd")
#: Optional: the demo does without it.
CONTROLLER_MANAGER = "kube-controller-manager"
VARIABLE = "KUBEBUILDER_ASSETS"
HOW = "run `make control-plane` in a checkout of Reconciler"


class AssetsMissingError(Exception):
    """The programs are not all there; the message is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Assets:
    """The programs and files one control plane is started from."""

    apiserver: Path
    etcd: Path
    controller_manager: Path | None
    crds: tuple[Path, ...]

    @classmethod
    def of(cls, binaries: Path, crds: Path) -> Assets | None:
        """Those of two directories; None if one of them does not hold what it should."""
        if not existing(binaries, PROGRAMS) or not existing(crds, FLINK_CRD_FILES):
            return None
        manager = binaries / CONTROLLER_MANAGER
        return cls(
            apiserver=binaries / "kube-apiserver",
            etcd=binaries / "etcd",
            controller_manager=manager if manager.is_file() else None,
            crds=tuple(crds / name for name in FLINK_CRD_FILES),
        )


def existing(directory: Path, names: tuple[str, ...]) -> bool:
    """Whether the directory holds all of these files."""
    return all((directory / name).is_file() for name in names)


def cache_root() -> Path:
    """Where built control planes live: outside the checkout, so that a fresh clone finds them."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "reconciler" / "control-plane"


def crds_directory() -> Path:
    """The directory of the unpacked Flink CRDs; named after the digest of the artifact that they come from."""
    return cache_root() / f"flink-crds-{FLINK_API_SHA256[:16]}"


def find(directory: Path | None = None) -> Assets:
    """The programs in `directory`, in KUBEBUILDER_ASSETS, or those built last. Raises AssetsMissingError."""
    binaries = _binaries(directory)
    for crds in (binaries, crds_directory()):
        assets = Assets.of(binaries, crds)
        if assets is not None:
            return assets
    raise AssetsMissingError(f"the Flink operator's CRDs are neither in {binaries} nor in {crds_directory()}: {HOW}")


def _binaries(directory: Path | None) -> Path:
    named, by = directory, "--assets"
    if named is None and os.environ.get(VARIABLE):
        named, by = Path(os.environ[VARIABLE]), VARIABLE
    if named is not None:
        if not existing(named, PROGRAMS):
            raise AssetsMissingError(f"{by} {named} has no {' and '.join(PROGRAMS)}: correct it, or {HOW}")
        return named.absolute()
    built = max(_built(), default=None)
    if built is None:
        raise AssetsMissingError(
            f"no {' and '.join(PROGRAMS)} on this machine: {HOW}, or name a directory that has them by --assets"
        )
    return built[1]


def _built() -> Iterator[tuple[float, Path]]:
    """The directories of the cache that hold the programs, each with the time at which it was built."""
    for binaries in cache_root().glob("*/bin"):
        if existing(binaries, PROGRAMS):
            yield binaries.stat().st_mtime, binaries
