"""Building the judge: a real API server, controller manager and etcd from Go modules, and the Flink operator's CRDs.

The tests that matter are answered by a real API server, so `make control-plane` makes one on any machine with Go and
Maven: `kubernetes/go.mod` and `etcd/go.mod` beside this file pin every module by version and checksum, the binaries
go to a cache outside the checkout (named after those files and the platform, so that a changed pin builds anew and an
old checkout still finds its own), and the CRDs come out of the operator's published API artifact, whose digest is
pinned where the package looks for them (`reconciler/demo/control_plane/assets.py`). The CRDs (530 KB of YAML) are not
committed; what the simulator needs of them is (27 KB, `schemas.py`).

Where KUBEBUILDER_ASSETS names a directory with `kube-apiserver` and `etcd`, nothing is built and those are used.

Example: `python -m tests.control_plane.build` prints the directory; the fixture asks `locate()` and never builds.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reconciler.demo.control_plane.assets import (
    CONTROLLER_MANAGER,
    FLINK_API_SHA256,
    FLINK_CRD_FILES,
    PROGRAMS,
    Assets,
    cache_root,
    crds_directory,
    existing,
)

__all__ = ["FLINK_API_SHA256", "Assets", "BuildError", "binaries_directory", "build", "locate", "main"]

KUBERNETES_VERSION = "1.36.3"
FLINK_OPERATOR_VERSION = "1.10.0"
FLINK_API_ARTIFACT = f"org.apache.flink:flink-kubernetes-operator-api:{FLINK_OPERATOR_VERSION}"
HERE = Path(__file__).resolve().parent


class BuildError(Exception):
    """The control plane cannot be built here; the message is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Module:
    """One Go module of ours and the programs built from it: package path -> name of the program."""

    directory: str
    packages: tuple[tuple[str, str], ...]
    ldflags: str


def kubernetes_ldflags() -> str:
    """The version the API server reports at /version; without it clients see v0.0.0."""
    major, minor, _ = KUBERNETES_VERSION.split(".")
    values = {
        "gitVersion": f"v{KUBERNETES_VERSION}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "unknown",
        "buildDate": "1970-01-01T00:00:00Z",
    }
    settings = [f"-X k8s.io/component-base/version.{name}={value}" for name, value in values.items()]
    return " ".join(["-s", "-w", *settings])


MODULES = (
    Module("etcd", (("go.etcd.io/etcd/server/v3", "etcd"),), "-s -w"),
    Module(
        "kubernetes",
        (
            ("k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver"),
            ("k8s.io/kubernetes/cmd/kube-controller-manager", CONTROLLER_MANAGER),
        ),
        kubernetes_ldflags(),
    ),
)


def binaries_directory() -> Path:
    """The directory of the binaries this checkout's module files lead to."""
    digest = hashlib.sha256()
    for module in MODULES:
        for name in ("go.mod", "go.sum"):
            digest.update((HERE / module.directory / name).read_bytes())
        digest.update(repr(module).encode())
    digest.update(f"{platform.system()} {platform.machine()}".encode())
    return cache_root() / digest.hexdigest()[:16] / "bin"


def locate() -> Assets | None:
    """The control plane's programs and CRDs when all of them are there; never builds or downloads."""
    override = os.environ.get("KUBEBUILDER_ASSETS")
    return Assets.of(Path(override) if override else binaries_directory(), crds_directory())


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file, so that two makes at once build once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def run(command: list[str], directory: Path, environment: dict[str, str], purpose: str) -> None:
    """Run a build tool; its output is shown only when it fails."""
    done = subprocess.run(
        command,
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        print(done.stdout, file=sys.stderr)
        raise BuildError(f"{purpose} failed with status {done.returncode}: {' '.join(command)}")


def build_binaries(target: Path) -> None:
    """Build all programs into a scratch directory beside the target, then rename it into place."""
    go = shutil.which("go")
    if go is None:
        raise BuildError(
            "no `go` on PATH: install Go 1.26 or newer, or set KUBEBUILDER_ASSETS to a directory with binaries"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="building-", dir=target.parent))
    # Go asks the environment alone where its caches are.
    home = os.environ.get("HOME") or os.path.expanduser("~")
    environment = {**os.environ, "HOME": home, "GOFLAGS": "", "GOWORK": "off", "CGO_ENABLED": "0"}
    try:
        for module in MODULES:
            for package, program in module.packages:
                print(f"building {program} ...", flush=True)
                command = [go, "build", "-mod=readonly", "-trimpath", f"-ldflags={module.ldflags}"]
                command += ["-o", str(scratch / program), package]
                run(command, HERE / module.directory, environment, f"building {program}")
        scratch.chmod(0o755)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def fetch_crds(target: Path) -> None:
    """Take the CRDs out of the operator's API artifact, fetched with Maven from where Maven is set up to fetch."""
    maven = shutil.which("mvn")
    if maven is None:
        raise BuildError("no `mvn` on PATH: install Maven 3.6 or newer (it fetches the Flink operator's CRDs)")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="fetching-", dir=target.parent))
    try:
        print(f"fetching {FLINK_API_ARTIFACT} ...", flush=True)
        command = [maven, "-q", "-B", "dependency:copy", f"-Dartifact={FLINK_API_ARTIFACT}"]
        run([*command, f"-DoutputDirectory={scratch}"], scratch, dict(os.environ), "fetching the Flink CRDs")
        archive = scratch / f"flink-kubernetes-operator-api-{FLINK_OPERATOR_VERSION}.jar"
        actual = hashlib.sha256(archive.read_bytes()).hexdigest()
        if actual != FLINK_API_SHA256:
            raise BuildError(f"{archive.name} has sha256 {actual}, expected {FLINK_API_SHA256}")
        unpacked = scratch / "crds"
        unpacked.mkdir()
        with zipfile.ZipFile(archive) as jar:
            for name in FLINK_CRD_FILES:
                (unpacked / name).write_bytes(jar.read(f"META-INF/fabric8/{name}"))
        unpacked.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def build() -> Assets:
    """Make whatever is missing; BuildError says what to install."""
    override = os.environ.get("KUBEBUILDER_ASSETS")
    if override and not existing(Path(override), PROGRAMS):
        raise BuildError(f"KUBEBUILDER_ASSETS={override} has no kube-apiserver and etcd: correct it or unset it")
    with exclusive(cache_root() / "lock"):
        binaries = binaries_directory()
        programs = tuple(program for module in MODULES for _, program in module.packages)
        if not override and not existing(binaries, programs):
            shutil.rmtree(binaries, ignore_errors=True)
            build_binaries(binaries)
        if not existing(crds_directory(), FLINK_CRD_FILES):
            shutil.rmtree(crds_directory(), ignore_errors=True)
            fetch_crds(crds_directory())
    assets = locate()
    if assets is None:
        raise BuildError("the control plane was built but is not found: remove its cache and try again")
    return assets


def main() -> int:
    """The command behind `make control-plane`."""
    try:
        assets = build()
    except BuildError as problem:
        print(f"control plane: {problem}", file=sys.stderr)
        return 1
    print(f"control plane: {assets.apiserver.parent}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
