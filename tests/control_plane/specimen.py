"""The specimen: one CRD of the tests' own with every kind of ownership, because Flink's CRDs have only the plain ones.

The Flink operator's 1.10 schemas have neither sets, list maps, defaults nor subtrees that preserve unknown fields,
but later versions and other operators have, and the service applies any kind. So the contract is shown on this kind,
on the real server (`server.install_crd`) and on the simulated one (whose table of it is
`reconciler/sim/schemas/specimen.json`).

Example: `spec.ports` is a list map by `port` and `protocol` (TCP by default): two managers may own one item each.
"""

from __future__ import annotations

from typing import Any

GROUP = "contract.reconciler.dev"

_PORT = {
    "type": "object",
    "required": ["port"],
    "properties": {
        "name": {"type": "string"},
        "port": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535},
        "protocol": {"type": "string", "default": "TCP", "enum": ["TCP", "UDP"]},
    },
}

_SPEC = {
    "type": "object",
    "required": ["title"],
    "properties": {
        "title": {"type": "string", "minLength": 1, "maxLength": 20, "pattern": "^[a-z ]+$"},
        "size": {"type": "integer", "format": "int32", "minimum": 0, "maximum": 10, "default": 3},
        "amount": {"x-kubernetes-int-or-string": True},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "words": {"type": "array", "items": {"type": "string"}},
        "ports": {
            "type": "array",
            "items": _PORT,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["port", "protocol"],
        },
        "whole": {"type": "object", "additionalProperties": {"type": "string"}, "x-kubernetes-map-type": "atomic"},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "nothing": {"type": "string", "nullable": True},
    },
}

SPECIMEN_CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"specimens.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "specimens", "singular": "specimen", "kind": "Specimen", "listKind": "SpecimenList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    {"name": "Title", "type": "string", "jsonPath": ".spec.title"},
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size", "priority": 1},
                ],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": _SPEC,
                            "status": {
                                "type": "object",
                                "properties": {
                                    "phase": {"type": "string"},
                                    "observedGeneration": {"type": "integer", "format": "int64"},
                                },
                            },
                        },
                    }
                },
            }
        ],
    },
}
