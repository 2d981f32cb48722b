"""Any commits of a small fleet, for properties: edits that add, change, break, move, rename and remove what it has."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import strategies as st

from reconciler.core.fleet import wanted
from reconciler.core.fleet_files import Contents, Listing
from reconciler.core.fleet_model import FleetCache
from tests.core.fleets import FLEET, POLICY, application, cluster, config_map, fleet_files, manifests

HEALTH = """\
apiVersion: reconciler.dev/v1alpha1
kind: HealthPolicy
metadata: {name: own}
spec: {match: [{kind: ConfigMap, name: one}], rules: [{health: Healthy, when: "true"}]}
"""
RULE = "spec: {directories: [{path: apps/plain, clusters: [a], namespace: other}],"


def of_path(name: str, path: str) -> str:
    """An application that takes its objects from a directory."""
    return application(name, f"  - {{name: {name}, type: manifests, properties: {{path: {path}}}}}\n")


def renamed(name: str, former: str) -> str:
    """An application that had another name."""
    mark = f"{{name: {name}, annotations: {{reconciler.dev/renamed-from: {former}}}}}"
    return application(name, manifests(name)).replace(f"metadata: {{name: {name}}}\nspec", f"metadata: {mark}\nspec")


def read(listing: Listing, blobs: Mapping[str, bytes], cache: FleetCache) -> Contents:
    """What a source reads before it compiles."""
    contents: dict[str, bytes] = {}
    while ids := wanted(listing, contents, cache):
        assert not contents.keys() & set(ids), "asked twice for the same blob"
        contents.update({blob: blobs[blob] for blob in ids})
    return contents


GROUND = fleet_files(
    **{
        "apps/flat.yaml": application("flat", manifests("flat")),
        "apps/two/app.yaml": application("two", manifests("two")),
        "apps/plain/x.yaml": config_map("plain"),
        "apps/ref/app.yaml": of_path("ref", "objects"),
        "apps/ref/objects/x.yaml": config_map("ref"),
        "apps/team/deep/app.yaml": application("deep", manifests("deep")),
        "apps/README.md": "read me",
    }
)


def after(files: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    """`files` with these contents instead; None removes a file."""
    return {path: text for path, text in {**files, **changes}.items() if text is not None}


NAMES = st.sampled_from(["one", "two", "three"])
OBJECTS = st.sampled_from(["one", "two", "x"])
VALUES = st.sampled_from(["1", "2"])
APPLICATIONS = st.builds(
    application,
    NAMES,
    st.builds(manifests, OBJECTS, VALUES),
    st.sampled_from(["", "", "  - {type: rollout, properties: {policy: standard}}\n", "  - {type: rollout}\n"]),
    st.sampled_from(["{}", "{}", "{region: eu}", "{region: nowhere}"]),
)
DOCUMENTS = st.one_of(
    APPLICATIONS,
    APPLICATIONS,
    st.builds(of_path, NAMES, st.sampled_from(["objects", ".", "../ref/objects", "..", "../.."])),
    st.builds(renamed, NAMES, NAMES),
    st.builds(config_map, OBJECTS, VALUES),
    st.sampled_from(
        ["kind: [unclosed\n", "kind: 1\n", application("one", "  - {name: one, typo: x}\n"), cluster("a", ring="rest")]
    ),
)
APPS = st.one_of(
    DOCUMENTS,
    DOCUMENTS,
    st.builds(lambda one, other: f"{one}---\n{other}", DOCUMENTS, DOCUMENTS),
    st.sampled_from(["", "->elsewhere", "@" + "1" * 39, "# nothing\n"]),
    st.none(),
)
APP_PATHS = st.sampled_from(
    [
        "apps/flat.yaml", "apps/other.yaml", "apps/FLAT.yaml", "apps/one/app.yaml", "apps/ONE/app.yaml",
        "apps/two/app.yaml", "apps/two/more.yaml", "apps/two/below/x.yaml", "apps/plain/x.yaml", "apps/plain/y/z.yaml",
        "apps/ref/app.yaml", "apps/ref/objects/x.yaml", "apps/three/app.yaml", "apps/README.md", "extra/one/app.yaml",
        "extra/two/x.yaml",
    ]
)  # fmt: skip
OF_APPLICATIONS = st.one_of(
    *[st.tuples(APP_PATHS, APPS)] * 6,
    st.tuples(
        st.sampled_from(["apps/two/kustomization.yaml", "apps/two/Chart.yaml", "apps/kustomization.yaml"]),
        st.sampled_from(["name: x", None]),
    ),
)
EDITS = st.one_of(
    *[OF_APPLICATIONS] * 7,
    st.tuples(
        st.sampled_from(["clusters/a.yaml", "clusters/b.yaml", "clusters/c.yaml"]),
        st.one_of(
            st.builds(lambda name, ring: cluster(name, ring=ring, region="eu"), st.sampled_from("abc"), VALUES),
            st.sampled_from([cluster("a").replace("{}", "{nope: 1}"), "kind: [", None]),
        ),
    ),
    st.tuples(
        st.sampled_from(["policies/two.yaml", "policies/own.yaml"]),
        st.sampled_from(
            [
                POLICY,
                POLICY.replace("30m", "10m"),
                POLICY.replace("30m", "30"),
                HEALTH,
                HEALTH.replace('"true"', '"tru"'),
                "kind: [",
                None,
            ]
        ),
    ),
    st.tuples(
        st.just("fleet.yaml"),
        st.sampled_from(
            [
                FLEET,
                FLEET.replace("flink", "other"),
                FLEET.replace("spec: {", RULE),
                FLEET.replace("applications: apps", "applications: [apps, 'extra/*']"),
                FLEET.replace("applications: apps", "applications: [apps/two, apps]"),
                FLEET.replace("applications: apps", "applications: ['apps/*', 'extra/**/*.yaml']"),
                "kind: [",
            ]
        ),
    ),
)
COMMITS = st.lists(st.lists(EDITS, max_size=3), min_size=1, max_size=8)
COMMITS_OF_APPLICATIONS = st.lists(st.lists(OF_APPLICATIONS, max_size=3), min_size=1, max_size=8)
