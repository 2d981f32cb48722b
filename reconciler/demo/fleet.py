"""The demo's repository: the sample for any number of clusters, and the changes that its steps commit.

The sample declares eight clusters. Fewer are a selection in which every ring is left; more are added region by region,
most of them to the last ring, as in fleets that grow. Nothing else of the sample changes.

    fleet = DemoFleet.of_sample(sample_directory(), clusters=8)
    fleet.files                                # path -> content, for the first commit
    fleet.with_change()                        # {"apps/orders/app.yaml": ...}: another image, more parallelism
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

#: The application that the steps change, and where it is declared.
APPLICATION = "orders"
APPLICATION_FILE = "apps/orders/app.yaml"
CLUSTERS_FOLDER = "clusters/"
#: The simulated operator makes a job with this in its image's tag crash again and again after it was RUNNING.
CRASH_MARKER = "crash-loop"
#: The sample's rings in the order of its waves.
RINGS = ("canary", "early", "rest")
CLUSTERS_MIN = len(RINGS)
CLUSTERS_MAX = 200

_IMAGE = re.compile(r"(?m)^(\s*image: \S+:)(\d+)\.(\d+)\.(\d+)(\S*)$")
_PARALLELISM = re.compile(r"(?<![\w.-])parallelism: (\d+)")
_NAMED_CLUSTERS = re.compile(r"clusters: \[([^\]]*)\]")


class SampleError(Exception):
    """The sample is not what the demo needs it to be."""


@dataclass(frozen=True, slots=True)
class DemoCluster:
    """One cluster of the fleet."""

    name: str
    region: str
    ring: str


@dataclass(frozen=True, slots=True)
class DemoFleet:
    """The repository's files, and its clusters in the order in which they are declared."""

    files: dict[str, bytes]
    clusters: tuple[DemoCluster, ...]

    @classmethod
    def of_sample(cls, directory: Path, clusters: int) -> DemoFleet:
        """The sample in `directory` with so many clusters."""
        files = {
            path.relative_to(directory).as_posix(): path.read_bytes()
            for path in sorted(directory.rglob("*"))
            if path.is_file()
        }
        declared = _declared(files)
        if not CLUSTERS_MIN <= clusters <= CLUSTERS_MAX:
            raise SampleError(f"a fleet of {CLUSTERS_MIN} to {CLUSTERS_MAX} clusters can be played, not of {clusters}")
        if clusters == len(declared):
            return cls(files, declared)
        chosen = _selected(declared, clusters) if clusters < len(declared) else _grown(declared, clusters)
        names = {cluster.name for cluster in chosen}
        kept = {
            path: _without_clusters(content, names)
            for path, content in files.items()
            if not path.startswith(CLUSTERS_FOLDER)
        }
        documents = "".join(_document(cluster) for cluster in chosen)
        return cls({**kept, f"{CLUSTERS_FOLDER}all.yaml": documents.encode()}, chosen)

    def last_of_ring(self, ring: str) -> DemoCluster:
        """The last declared cluster of `ring`, of the region that has fewest."""
        found = [cluster for cluster in self.clusters if cluster.ring == ring]
        size = {cluster.region: sum(other.region == cluster.region for other in self.clusters) for cluster in found}
        return min(reversed(found), key=lambda cluster: size[cluster.region])

    def first_of_ring(self, ring: str) -> DemoCluster:
        """The first declared cluster of `ring`."""
        return next(cluster for cluster in self.clusters if cluster.ring == ring)

    def with_change(self) -> dict[str, bytes]:
        """The application's next version: another image, and half as much parallelism again on every cluster."""
        text = _bumped(self._application(), suffix="")
        text, count = _PARALLELISM.subn(lambda match: f"parallelism: {-(-int(match[1]) * 3 // 2)}", text)
        if not count:
            raise SampleError(f"{APPLICATION_FILE} declares no parallelism")
        return {APPLICATION_FILE: text.encode()}

    def with_bad_image(self) -> dict[str, bytes]:
        """The application's next version, which crashes."""
        return {APPLICATION_FILE: _bumped(self._application(), suffix=f"-{CRASH_MARKER}").encode()}

    def committed(self, changes: dict[str, bytes]) -> DemoFleet:
        """The fleet after a commit."""
        return DemoFleet({**self.files, **changes}, self.clusters)

    def changed_lines(self, changes: dict[str, bytes]) -> list[str]:
        """What `changes` changes, for people: "image: ...:4.2.0 -> 4.3.0"."""
        pairs = [
            pair
            for path, content in sorted(changes.items())
            for pair in zip(self.files[path].decode().splitlines(), content.decode().splitlines(), strict=True)
        ]
        return [_in_words(before, after) for before, after in pairs if before != after]

    def _application(self) -> str:
        return self.files[APPLICATION_FILE].decode()


def _in_words(before: str, after: str) -> str:
    """Two versions of one line: what is the same is said once, whole words differ."""
    old, new = before.split(), after.split()
    number = next(number for number, (one, other) in enumerate(zip(old, new, strict=True)) if one != other)
    name = old[number - 1].lstrip("{") if number else ""
    return f"{name} {old[number].strip(',{}').rpartition('/')[2]} -> {new[number].strip(',{}').rpartition(':')[2]}"


def _bumped(text: str, suffix: str) -> str:
    """The next minor version of the image."""
    bumped, count = _IMAGE.subn(lambda match: f"{match[1]}{match[2]}.{int(match[3]) + 1}.0{suffix}", text)
    if count != 1:
        raise SampleError(f"{APPLICATION_FILE} names {count} images with a version, not one")
    return bumped


def _declared(files: dict[str, bytes]) -> tuple[DemoCluster, ...]:
    found = []
    for path in sorted(files):
        if path.startswith(CLUSTERS_FOLDER):
            for document in yaml.safe_load_all(files[path]):
                labels = document["metadata"]["labels"]
                found.append(DemoCluster(document["metadata"]["name"], labels["region"], labels["ring"]))
    return tuple(found)


def _selected(clusters: Sequence[DemoCluster], number: int) -> tuple[DemoCluster, ...]:
    """`number` of them: first one of each ring, from different regions where possible, then in order."""
    chosen: list[DemoCluster] = []
    for ring in RINGS:
        regions = {cluster.region for cluster in chosen}
        of_ring = [cluster for cluster in clusters if cluster.ring == ring]
        chosen.append(next((cluster for cluster in of_ring if cluster.region not in regions), of_ring[0]))
    chosen += [cluster for cluster in clusters if cluster not in chosen]
    return tuple(cluster for cluster in clusters if cluster in chosen[:number])


def _grown(clusters: Sequence[DemoCluster], number: int) -> tuple[DemoCluster, ...]:
    """The declared ones and more, in zones of their own: every fourth of the second ring, the others of the last."""
    regions = sorted({cluster.region for cluster in clusters})
    grown = list(clusters)
    for index in range(number - len(clusters)):
        place, region = divmod(index, len(regions))
        zone, letter = divmod(place, 26)
        name = f"{regions[region]}-{zone + 2}{chr(ord('a') + letter)}"
        grown.append(DemoCluster(name, regions[region], RINGS[1] if index % 4 == 3 else RINGS[-1]))
    return tuple(grown)


def _without_clusters(content: bytes, names: set[str]) -> bytes:
    """Clusters that are named one by one, without those that do not exist; a list with none left names the first of
    the fleet, for an empty one would be refused."""

    def kept(match: re.Match[str]) -> str:
        listed = [name.strip() for name in match[1].split(",")]
        left = [name for name in listed if name in names] or [min(names)]
        return f"clusters: [{', '.join(left)}]"

    return _NAMED_CLUSTERS.sub(kept, content.decode()).encode()


def _document(cluster: DemoCluster) -> str:
    return (
        "---\n"
        "apiVersion: reconciler.dev/v1alpha1\n"
        "kind: Cluster\n"
        "metadata:\n"
        f"  name: {cluster.name}\n"
        f"  labels: {{env: prod, region: {cluster.region}, ring: {cluster.ring}}}\n"
        f"spec: {{credentials: {cluster.name}}}\n"
    )
