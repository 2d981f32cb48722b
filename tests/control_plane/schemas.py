"""Schema tables: what the simulator knows about types, derived from a real API server and never written by hand.

The simulated API server must answer as the real one does about ownership (which list is a map and by which keys), about
fields it does not know, and about defaults. All of that is in the real server's `/openapi/v3` and in the Flink operator's
CRDs, but those are megabytes of prose; `make schemas` boils them down to `reconciler/sim/schemas/*.json`, which are
committed. A test marked `controlplane` derives them again and fails when the committed tables are stale.

Files, each sorted and compact:

    resources.json      {"resources": [RESOURCE, ...]}
    builtin.json        {"types": {NAME: TYPE, ...}}     core/v1, apps/v1, batch/v1, ... and meta/v1
    flink.json          {"types": {NAME: TYPE, ...}}     the Flink CRDs; equal subtrees are stored once
    defaults.json       {"defaults": {NAME: {FIELD: VALUE}}}   set by Go code in the server, absent from its OpenAPI:
                        `FIXED_DEFAULTS` below, copied; a contract test compares them with the real server

    RESOURCE = {"group": "", "version": "v1", "kind": "ConfigMap", "list_kind": "ConfigMapList", "plural": "configmaps",
                "singular": "configmap", "namespaced": true, "verbs": [...], "short_names": ["cm"], "categories": [],
                "subresources": ["status"], "type": "#io.k8s.api.core.v1.ConfigMap", "custom": false}
               `custom` is true for a CRD's kinds: their status subresource does not count as spec for `generation`, unknown
               fields are pruned, and strategic merge patch is refused (415). `columns` (CRDs only) are the printer columns
               [{"name","type","jsonPath","priority"?,...}] of Table answers.

    TYPE = "string" | "integer" | "number" | "boolean"     a scalar
         | "scalar"                                         int-or-string or quantity: any scalar
         | "any"                                            schemaless: maps by field, lists atomic, scalars leaves
         | "#NAME"                                          the type of that name, in either file
         | {"map": TYPE}                                    a map, owned key by key; with "atomic": true owned as a whole
         | {"list": TYPE}                                   an atomic list (owned as a whole)
         | {"list": TYPE, "set": true}                      a set, owned item by item (`v:`)
         | {"list": TYPE, "keys": ["containerPort", "protocol"]}   a list map, owned item by item (`k:`)
         | {"struct": {FIELD: TYPE, ...},                   an object with these fields, with, where they say something:
              "required": [FIELD, ...],
              "defaults": {FIELD: VALUE},                   set where the field is absent (and for list-map keys)
              "enums": {FIELD: [VALUE, ...]},
              "limits": {FIELD: {"minimum": 0, "maximum": 9, "pattern": "..", "minLength": 1, "format": "int32", ...}},
              "nullable": [FIELD, ...],
              "atomic": true,                               owned as a whole (x-kubernetes-map-type: atomic)
              "open": true}                                 unknown fields are kept (x-kubernetes-preserve-unknown-fields)

One example: `{"list": "#io.k8s.api.core.v1.ContainerPort", "keys": ["containerPort", "protocol"]}` together with
`{"struct": {"containerPort": "integer", "protocol": "string", ...}, "defaults": {"protocol": "TCP"}, ...}` says that a port
applied without a protocol is owned as `k:{"containerPort":8081,"protocol":"TCP"}`.
"""
