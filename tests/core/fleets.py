"""Small fleets for tests: files as a dict, compiled as the daemon would."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from reconciler import resources
from reconciler.core.fleet import Result, compile_fleet, wanted
from reconciler.core.fleet_files import Listing
from reconciler.core.fleet_model import EMPTY_CACHE, FleetCache, FleetSettings
from reconciler.core.objects import Scope
from reconciler.core.problems import Problem, Severity

FLEET = """\
apiVersion: reconciler.dev/v1alpha1
kind: Fleet
metadata: {name: test}
spec: {clusters: clusters, applications: apps, policies: policies, defaults: {namespace: flink, rollout: two}}
"""
POLICY = """\
apiVersion: reconciler.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: two}
spec:
  waves:
  - {name: canary, select: {clusters: {ring: canary}}, bake: 30m}
  - {name: rest, size: 100%, bake: 5m, maxConcurrent: 50%}
"""


def cluster(name: str, **labels: str) -> str:
    """A Cluster document."""
    pairs = ", ".join(f"{key}: {value}" for key, value in labels.items())
    metadata = f"{{name: {name}, labels: {{{pairs}}}}}"
    return f"apiVersion: reconciler.dev/v1alpha1\nkind: Cluster\nmetadata: {metadata}\nspec: {{}}\n"


def application(name: str, components: str, policies: str = "", selector: str = "{}") -> str:
    """An Application document; `components` and `policies` are lists in YAML, indented by two."""
    topology = f"  - {{type: topology, properties: {{clusterLabelSelector: {selector}}}}}\n"
    return (
        f"apiVersion: core.oam.dev/v1beta1\nkind: Application\nmetadata: {{name: {name}}}\n"
        f"spec:\n  components:\n{components}  policies:\n{topology}{policies}"
    )


def config_map(name: str, value: str = "1", namespace: str = "") -> str:
    """A plain ConfigMap."""
    where = f", namespace: {namespace}" if namespace else ""
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}{where}}}\ndata: {{key: '{value}'}}\n"


def manifests(name: str, value: str = "1") -> str:
    """A component of one ConfigMap."""
    inline = f"{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}, data: {{key: '{value}'}}}}"
    return f"  - {{name: {name}, type: manifests, properties: {{objects: [{inline}]}}}}\n"


def flink(name: str, image: str = "job:1", more: str = "", traits: str = "") -> str:
    """A flink-application component; `more` are properties, `traits` a list, both in YAML with full indentation."""
    return (
        f"  - name: {name}\n    type: flink-application\n    properties:\n      image: {image}\n"
        f"      flinkVersion: v1_20\n      job: {{jarURI: 'local:///job.jar', parallelism: 2}}\n{more}"
        + (f"    traits:\n{traits}" if traits else "")
    )


def fleet_files(**more: str) -> dict[str, str]:
    """Two clusters, one policy, one application; `more` as {"path": content} replaces or adds."""
    return {
        "fleet.yaml": FLEET,
        "clusters/a.yaml": cluster("a", ring="canary", region="eu"),
        "clusters/b.yaml": cluster("b", ring="rest", region="us"),
        "policies/two.yaml": POLICY,
        "apps/one/app.yaml": application("one", manifests("one")),
        **more,
    }


def listing_of(files: Mapping[str, str]) -> tuple[Listing, dict[str, bytes]]:
    """The listing and the blobs of files; content "->x" is a link, content "@x" a submodule."""
    listing: dict[str, tuple[str, str]] = {}
    blobs: dict[str, bytes] = {}
    for path, text in files.items():
        blob = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        mode = "120000" if text.startswith("->") else "160000" if text.startswith("@") else "100644"
        listing[path] = (mode, blob)
        blobs[blob] = text.encode()
    return listing, blobs


def build(files: Mapping[str, str], cache: FleetCache = EMPTY_CACHE, scope: Scope | None = None) -> Result:
    """Compiles `files`, reading only the blobs that are wanted."""
    listing, blobs = listing_of(files)
    contents: dict[str, bytes] = {}
    while ids := wanted(listing, contents, cache):
        assert not contents.keys() & set(ids), "asked twice for the same blob"
        contents.update({blob: blobs[blob] for blob in ids})
    return compile_fleet(listing, contents, cache, FleetSettings(resources.catalogue(), scope or Scope()))


def errors(result: Result) -> list[tuple[str, str]]:
    """File and code of every error."""
    return [(p.file, p.code) for p in result.snapshot.problems if p.severity is Severity.ERROR]


def problem(result: Result, code: str) -> Problem:
    """The only problem with this code."""
    found = [p for p in result.snapshot.problems if p.code == code]
    assert len(found) == 1, [str(p) for p in result.snapshot.problems]
    return found[0]
