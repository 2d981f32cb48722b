"""Schema tables: what the simulator knows about types, derived from a real API server and never written by hand.

The simulated API server must answer as the real one does about ownership (which list is a map and by which keys), about
fields it does not know, and about defaults. All of that is in the real server's `/openapi/v3` and in the Flink
operator's CRDs, but those are megabytes of prose; `make schemas` boils them down to `reconciler/sim/schemas/*.json`,
which are committed. A test marked `controlplane` derives them again and fails when the committed tables are stale.

Files, each sorted and compact:

    resources.json      {"resources": [RESOURCE, ...]}
    builtin.json        {"types": {NAME: TYPE, ...}}     core/v1, apps/v1, batch/v1, ... and meta/v1
    flink.json          {"types": {NAME: TYPE, ...}}     the Flink CRDs; equal subtrees are stored once
    defaults.json       {"defaults": {NAME: {FIELD: VALUE}}}   set by Go code in the server, absent from its OpenAPI:
                        `FIXED_DEFAULTS` below, copied; the contract tests compare them with the real server
    specimen.json       the same as resources.json and builtin.json together, of one CRD of our own (`specimen.py`) that
                        has what Flink's lack: sets, list maps, atomic maps, preserve-unknown, limits, defaults

    RESOURCE = {"group": "", "version": "v1", "kind": "ConfigMap", "list_kind": "ConfigMapList", "plural": "configmaps",
                "singular": "configmap", "namespaced": true, "verbs": [...], "short_names": ["cm"], "categories": [],
                "subresources": ["status"], "type": "#core.v1.ConfigMap", "custom": false}
               `custom` is true for a CRD's kinds: everything but metadata and status counts for `generation`, unknown
               fields are pruned, strategic merge patch is refused (415). `columns` (CRDs only) are the printer
               columns [{"name","type","jsonPath","priority"?,...}] of Table answers.

    TYPE = "string" | "integer" | "number" | "boolean"     a scalar
         | "scalar"                                         int-or-string or quantity: any scalar
         | "any"                                            schemaless: maps by field, lists atomic, scalars leaves
         | "#NAME"                                          the type of that name, in either file
         | {"map": TYPE}                                    a map, owned key by key; "atomic": true: owned as a whole
         | {"list": TYPE}                                   an atomic list (owned as a whole)
         | {"list": TYPE, "set": true}                      a set, owned item by item (`v:`)
         | {"list": TYPE, "keys": ["containerPort", "protocol"]}   a list map, owned item by item (`k:`)
         | {"struct": {FIELD: TYPE, ...},                   an object with these fields, with, where they say something:
              "required": [FIELD, ...],
              "defaults": {FIELD: VALUE},                   set where the field is absent (and for list-map keys)
              "enums": {FIELD: [VALUE, ...]},
              "limits": {FIELD: {"minimum": 0, "maximum": 9, "pattern": "..", "minLength": 1, "format": "int32", ...}},
              "nullable": [FIELD, ...],
              "always": [FIELD, ...],                       structs the server writes as {} even where they are empty
              "atomic": true,                               owned as a whole (x-kubernetes-map-type: atomic)
              "open": true}                                 unknown fields are kept (preserve-unknown-fields)

Types are named as in the server's OpenAPI without its prefixes: `core.v1.Container`, `apps.v1.Deployment`,
`meta.v1.ObjectMeta`. Only built-in kinds that can be listed are in; defaults that are a type's zero value are left
out, for the server refuses or omits those. What depends on more than one field is code in the simulator, seen by the
contract tests: imagePullPolicy (Always for the tag latest or none, else IfNotPresent), a Service's cluster IP and
target ports, a Deployment's rolling update (25 % each), a restart policy's limits.

One example: `{"list": "#core.v1.ContainerPort", "keys": ["containerPort", "protocol"]}` together with
`{"struct": {"containerPort": "integer", "protocol": "string", ...}, "defaults": {"protocol": "TCP"}, ...}` says that
a port applied without a protocol is owned as `k:{"containerPort":8081,"protocol":"TCP"}`.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.control_plane import build, server
from tests.control_plane.specimen import SPECIMEN_CRD

Tables = dict[str, dict[str, Any]]

DESTINATION = Path(__file__).resolve().parent.parent.parent / "reconciler" / "sim" / "schemas"
GROUP_VERSIONS = (
    "v1",
    "apps/v1",
    "autoscaling/v2",
    "batch/v1",
    "networking.k8s.io/v1",
    "policy/v1",
    "rbac.authorization.k8s.io/v1",
)
PREFIXES = ("io.k8s.api.", "io.k8s.apimachinery.pkg.apis.", "io.k8s.apimachinery.pkg.")
LIMITS = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties", "pattern", "format")
SCALARS = ("string", "integer", "number", "boolean")

FIXED_DEFAULTS: dict[str, dict[str, Any]] = {
    "apps.v1.DeploymentSpec": {"progressDeadlineSeconds": 600, "replicas": 1, "revisionHistoryLimit": 10},
    "apps.v1.DeploymentStrategy": {"type": "RollingUpdate"},
    "apps.v1.StatefulSetSpec": {"podManagementPolicy": "OrderedReady", "replicas": 1, "revisionHistoryLimit": 10},
    "apps.v1.StatefulSetUpdateStrategy": {"type": "RollingUpdate"},
    "batch.v1.JobSpec": {
        "backoffLimit": 6,
        "completionMode": "NonIndexed",
        "manualSelector": False,
        "podReplacementPolicy": "TerminatingOrFailed",
        "suspend": False,
    },
    "core.v1.ConfigMapVolumeSource": {"defaultMode": 420},
    "core.v1.Container": {"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"},
    "core.v1.HTTPGetAction": {"path": "/", "scheme": "HTTP"},
    "core.v1.HostPathVolumeSource": {"type": ""},
    "core.v1.ObjectFieldSelector": {"apiVersion": "v1"},
    "core.v1.PersistentVolumeClaimSpec": {"volumeMode": "Filesystem"},
    "core.v1.PodSpec": {
        "dnsPolicy": "ClusterFirst",
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    },
    "core.v1.Probe": {"failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1},
    "core.v1.ProjectedVolumeSource": {"defaultMode": 420},
    "core.v1.Secret": {"type": "Opaque"},
    "core.v1.SecretVolumeSource": {"defaultMode": 420},
    "core.v1.ServicePort": {"protocol": "TCP"},
    "core.v1.ServiceSpec": {"internalTrafficPolicy": "Cluster", "sessionAffinity": "None", "type": "ClusterIP"},
    "networking.v1.NetworkPolicyPort": {"protocol": "TCP"},
}


def short(reference: str) -> str:
    """The name of a type without where it is defined."""
    name = reference.rsplit("/", 1)[-1]
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def limits_of(schema: dict[str, Any]) -> dict[str, Any]:
    """The validations of one field that the schema names."""
    return {name: schema[name] for name in LIMITS if name in schema}


def is_scalar_of_any_type(schema: dict[str, Any]) -> bool:
    """Whether this is int-or-string or a quantity."""
    return bool(schema.get("x-kubernetes-int-or-string")) or "oneOf" in schema or "anyOf" in schema


def convert(schema: dict[str, Any]) -> Any:
    """One OpenAPI schema as a TYPE of the module's docstring."""
    if "$ref" in schema:
        return "#" + short(schema["$ref"])
    if len(schema.get("allOf", ())) == 1 and "$ref" in schema["allOf"][0]:
        return "#" + short(schema["allOf"][0]["$ref"])
    if is_scalar_of_any_type(schema):
        return "scalar"
    kind = schema.get("type")
    if kind in SCALARS:
        return kind
    if kind == "array":
        return convert_list(schema)
    structured = ("properties", "additionalProperties", "x-kubernetes-map-type", "x-structural")
    preserving = "x-kubernetes-preserve-unknown-fields"
    # An object that preserves unknown fields is open, but still an object: null is refused.
    if kind is None or not any(name in schema for name in (*structured, preserving)):
        return "any"
    if isinstance(schema.get("additionalProperties"), dict):
        table: dict[str, Any] = {"map": convert(schema["additionalProperties"])}
        if schema.get("x-kubernetes-map-type") == "atomic":
            table["atomic"] = True
        return table
    return convert_struct(schema)


def convert_list(schema: dict[str, Any]) -> dict[str, Any]:
    """A list, by who owns what of it."""
    table: dict[str, Any] = {"list": convert(schema["items"])}
    kind = schema.get("x-kubernetes-list-type")
    if kind == "set":
        table["set"] = True
    elif kind == "map":
        table["keys"] = schema["x-kubernetes-list-map-keys"]
    return table


def convert_struct(schema: dict[str, Any]) -> dict[str, Any]:
    """An object with named fields."""
    properties = schema.get("properties", {})
    table: dict[str, Any] = {"struct": {name: convert(field) for name, field in sorted(properties.items())}}
    facts = {
        "required": sorted(schema.get("required", ())),
        "defaults": {
            n: f["default"] for n, f in sorted(properties.items()) if f.get("default") not in (None, "", 0, {})
        },
        "enums": {n: sorted(f["enum"]) for n, f in sorted(properties.items()) if "enum" in f},
        "limits": {n: limits_of(f) for n, f in sorted(properties.items()) if limits_of(f)},
        "nullable": sorted(n for n, f in properties.items() if f.get("nullable")),
        "always": sorted(n for n, f in properties.items() if f.get("default") == {} and n != "metadata"),
    }
    table.update({name: fact for name, fact in facts.items() if fact})
    if schema.get("x-kubernetes-map-type") == "atomic":
        table["atomic"] = True
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        table["open"] = True
    return table


def references(table: Any) -> Iterator[str]:
    """The names of the types a TYPE refers to."""
    if isinstance(table, str):
        if table.startswith("#"):
            yield table[1:]
    elif "struct" in table:
        for field in table["struct"].values():
            yield from references(field)
    else:
        yield from references(table["map" if "map" in table else "list"])


def structural(schema: dict[str, Any]) -> dict[str, Any]:
    """A CRD's schema with its objects marked: one without fields is empty there, unless it preserves what is given."""
    marked = dict(schema)
    if schema.get("type") == "object" and not schema.get("x-kubernetes-preserve-unknown-fields"):
        marked["x-structural"] = True
    if "properties" in schema:
        marked["properties"] = {name: structural(field) for name, field in schema["properties"].items()}
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            marked[name] = structural(schema[name])
    return marked


def custom_types(crd: dict[str, Any], version: dict[str, Any]) -> Tables:
    """The types of one version of a CRD: its root, and each struct that occurs more than once under its own name."""
    kind = crd["spec"]["names"]["kind"]
    root = convert(structural(version["schema"]["openAPIV3Schema"]))
    root["struct"].update({"apiVersion": "string", "kind": "string", "metadata": "#meta.v1.ObjectMeta"})
    counts: Counter[str] = Counter()

    def count(table: Any) -> None:
        if not isinstance(table, dict):
            return
        if "struct" in table:
            counts[json.dumps(table, sort_keys=True)] += 1
            for field in table["struct"].values():
                count(field)
        else:
            count(table["map" if "map" in table else "list"])

    types: Tables = {}
    names: dict[str, str] = {}

    def share(table: Any, path: str) -> Any:
        if not isinstance(table, dict):
            return table
        if "struct" not in table:
            element = "map" if "map" in table else "list"
            return {**table, element: share(table[element], path)}
        text = json.dumps(table, sort_keys=True)
        if text in names:
            return "#" + names[text]
        fields = {name: share(field, name) for name, field in sorted(table["struct"].items())}
        shared = {**table, "struct": fields}
        if counts[text] == 1:
            return shared
        number = 1
        while (name := f"{kind}.{path}" + (f".{number}" if number > 1 else "")) in types:
            number += 1
        names[text] = name
        types[name] = shared
        return "#" + name

    count(root)
    types[kind] = share(root, "")
    return types


def resource(discovered: dict[str, Any], group: str, version: str, all_names: set[str]) -> dict[str, Any]:
    """One RESOURCE out of a discovery document's entry."""
    plural = discovered["name"]
    return {
        "group": group,
        "version": version,
        "kind": discovered["kind"],
        "list_kind": discovered["kind"] + "List",
        "plural": plural,
        "singular": discovered["singularName"],
        "namespaced": discovered["namespaced"],
        "verbs": sorted(discovered["verbs"]),
        "short_names": sorted(discovered.get("shortNames", ())),
        "categories": sorted(discovered.get("categories", ())),
        "subresources": sorted(n.split("/")[1] for n in all_names if n.startswith(plural + "/")),
        "custom": False,
    }


def get(plane: server.ControlPlane, path: str) -> Any:
    """A document of the API server."""
    status, document = server.call(plane, "GET", path)
    if status != 200:
        raise server.ControlPlaneError(f"GET {path}: {status} {document}")
    return document


def builtin_tables(plane: server.ControlPlane) -> tuple[list[dict[str, Any]], Tables]:
    """Resources and types of the server's own kinds."""
    resources: list[dict[str, Any]] = []
    schemas: dict[str, Any] = {}
    index = get(plane, "/openapi/v3")["paths"]
    for group_version in GROUP_VERSIONS:
        path = f"apis/{group_version}" if "/" in group_version else f"api/{group_version}"
        group, _, version = group_version.rpartition("/")
        discovered = get(plane, "/" + path)["resources"]
        names = {each["name"] for each in discovered}
        document = get(plane, index[path]["serverRelativeURL"])["components"]["schemas"]
        kinds = {
            (gvk["group"], gvk["version"], gvk["kind"]): name
            for name, schema in document.items()
            for gvk in schema.get("x-kubernetes-group-version-kind", ())
        }
        schemas.update(document)
        for each in discovered:
            if "/" not in each["name"] and "list" in each["verbs"]:
                row = resource(each, group, version, names)
                row["type"] = "#" + short(kinds[group, version, each["kind"]])
                resources.append(row)
    by_name = {short(name): schema for name, schema in schemas.items()}
    types: Tables = {}
    waiting = [row["type"][1:] for row in resources]
    while waiting:
        name = waiting.pop()
        if name not in types:
            types[name] = convert(by_name[name])
            waiting.extend(references(types[name]))
    return resources, types


def custom_tables(plane: server.ControlPlane, crds: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Tables]:
    """Resources and types of CRDs; discovery says what the server makes of them."""
    resources: list[dict[str, Any]] = []
    types: Tables = {}
    for crd in sorted(crds, key=lambda each: str(each["metadata"]["name"])):
        spec = crd["spec"]
        for version in spec["versions"]:
            discovered = get(plane, f"/apis/{spec['group']}/{version['name']}")["resources"]
            names = {each["name"] for each in discovered}
            for each in discovered:
                if each["name"] == spec["names"]["plural"]:
                    row = resource(each, spec["group"], version["name"], names)
                    columns = version.get("additionalPrinterColumns", [])
                    columns = [{key: column[key] for key in column if key != "description"} for column in columns]
                    row |= {"type": "#" + each["kind"], "custom": True, "columns": columns}
                    resources.append(row)
            types |= custom_types(crd, version)
    return resources, types


def derive(plane: server.ControlPlane) -> dict[str, str]:
    """All tables: name of the file -> its text."""
    crds = get(plane, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions")["items"]
    flink = [crd for crd in crds if crd["spec"]["group"] == "flink.apache.org"]
    specimen = [crd for crd in crds if crd["metadata"]["name"] == SPECIMEN_CRD["metadata"]["name"]]
    builtin_resources, builtin_types = builtin_tables(plane)
    flink_resources, flink_types = custom_tables(plane, flink)
    specimen_resources, specimen_types = custom_tables(plane, specimen)
    rows = sorted(builtin_resources + flink_resources, key=lambda row: (row["group"], row["version"], row["plural"]))
    tables: dict[str, dict[str, Any]] = {
        "resources.json": {"resources": rows},
        "builtin.json": {"types": builtin_types},
        "flink.json": {"types": flink_types},
        "defaults.json": {"defaults": FIXED_DEFAULTS},
        "specimen.json": {"resources": specimen_resources, "types": specimen_types},
    }
    return {name: compact(table) for name, table in tables.items()}


def compact(table: dict[str, Any]) -> str:
    """Text with one line per entry of the top-level tables, so that a changed type is a changed line."""
    parts = []
    for section, entries in sorted(table.items()):
        if isinstance(entries, list):
            lines = [json.dumps(entry, sort_keys=True, separators=(",", ":")) for entry in entries]
            parts.append(f'"{section}":[\n' + ",\n".join(lines) + "\n]")
        else:
            lines = [
                f"{json.dumps(name)}:{json.dumps(entry, sort_keys=True, separators=(',', ':'))}"
                for name, entry in sorted(entries.items())
            ]
            parts.append(f'"{section}":{{\n' + ",\n".join(lines) + "\n}")
    return "{" + ",\n".join(parts) + "}\n"


def main() -> int:
    """The command behind `make schemas`."""
    assets = build.locate()
    if assets is None:
        print("schemas: no control plane: run `make control-plane`", file=sys.stderr)
        return 1
    with server.start(assets) as plane:
        server.install_crd(plane, SPECIMEN_CRD)
        tables = derive(plane)
    DESTINATION.mkdir(parents=True, exist_ok=True)
    for name, text in tables.items():
        (DESTINATION / name).write_text(text)
        print(f"{DESTINATION / name}: {len(text)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
