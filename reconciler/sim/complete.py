"""Completion: what the API server makes of an object before it stores it.

Unknown fields and nulls are dropped, defaults set, quantities brought to their canonical form, a Secret's `stringData`
folded into `data`. Parts that are identical to the live object's were completed before and are skipped, so that a
small change costs little.

    complete(services, {"spec": {"ports": [{"port": 80}]}}, None)
    # ... {"port": 80, "protocol": "TCP", "targetPort": 80}
"""

from __future__ import annotations

import base64
import enum
import re
from collections.abc import Callable
from decimal import ROUND_UP, Decimal
from functools import lru_cache
from typing import Any

from reconciler.sim.schema import ANY, Node, Resource, Shape

QUANTITY = "api.resource.Quantity"
#: Metadata is completed by the rules of built-in kinds, custom objects' too.
OBJECT_META = "meta.v1.ObjectMeta"


class Rules(enum.Enum):
    """What becomes of nulls and empty parts. Built-in kinds lose them. Custom kinds lose nulls of fields that are not
    nullable, but for an apply, where such a null (an emptied map is one, too) reaches validation and is refused."""

    BUILT_IN = "built-in"
    CUSTOM = "custom"
    CUSTOM_APPLY = "custom, applied"


def complete(resource: Resource, value: dict[str, Any], known: Any, *, applied: bool = False) -> dict[str, Any]:
    """The object as it is stored; `known` is the live object it was made from."""
    rules = (Rules.CUSTOM_APPLY if applied else Rules.CUSTOM) if resource.custom else Rules.BUILT_IN
    result: dict[str, Any] = _fill(resource.node, value, known, rules)
    if resource.kind == "Secret" and not resource.group:
        result = _fold_string_data(result)
    if resource.storage in _ENCODED:
        result = _without_line_breaks(result, _ENCODED[resource.storage])
    return result


def unknown_fields(node: Node, value: Any, path: str = "") -> list[str]:
    """The declared type's unknown fields in the value: ["spec.foo", ...]; strict field validation refuses them."""
    if isinstance(value, dict) and node.shape is Shape.MAP:
        found: list[str] = []
        for key, child in value.items():
            child_node = node.child(key)
            where = f"{path}.{key}" if path else key
            found += [where] if child_node is None else unknown_fields(child_node, child, where)
        return found
    if isinstance(value, list) and node.shape is Shape.LIST and node.element is not None:
        return [name for i, item in enumerate(value) for name in unknown_fields(node.element, item, f"{path}[{i}]")]
    return []


def _fill(node: Node, value: Any, known: Any, rules: Rules) -> Any:
    if value is known:
        return value
    shape = node.shape
    if shape is Shape.MAP and value.__class__ is dict:
        if node.struct:
            if node.name == OBJECT_META:
                rules = Rules.BUILT_IN
            return _fill_struct(node, value, known if known.__class__ is dict else {}, rules)
        element = node.element
        if (
            element is None
            or element.shape is Shape.ANY
            or (element.shape is Shape.SCALAR and element.name != QUANTITY)
        ):
            if (
                rules is Rules.BUILT_IN
                and element is not None
                and element.scalar == "string"
                and None in value.values()
            ):
                # A map of strings has no nulls in Go: they become empty strings.
                return {key: "" if child is None else child for key, child in value.items()}
            return value
        previous = known if known.__class__ is dict else {}
        return _share(value, {key: _fill(element, child, previous.get(key), rules) for key, child in value.items()})
    if shape is Shape.LIST and value.__class__ is list and node.element is not None:
        return _fill_list(node.element, value, known, rules)
    if node.name == QUANTITY and rules is Rules.BUILT_IN:
        return canonical_quantity(value)
    return value


def _share(before: Any, after: Any) -> Any:
    """The old container when its parts are the same."""
    return before if all(after[key] is before[key] for key in before) else after


def _fill_list(element: Node, value: list[Any], known: Any, rules: Rules) -> list[Any]:
    if element.shape in (Shape.SCALAR, Shape.ANY):
        return value
    done = {id(item) for item in known} if known.__class__ is list else set()
    result = [item if id(item) in done else _fill(element, item, None, rules) for item in value]
    return value if all(a is b for a, b in zip(result, value, strict=True)) else result


def _fill_struct(node: Node, value: dict[str, Any], known: dict[str, Any], rules: Rules) -> dict[str, Any]:
    result = value
    fields, element = node.fields, node.element
    for key, child in value.items():
        declared = fields.get(key)
        child_node = declared or element
        if child_node is None:
            filled: Any = _GONE
        elif child is None:
            filled = child if _keeps_null(node, key, rules) else _GONE
        else:
            filled = _fill(child_node, child, known.get(key), rules)
            if rules is Rules.BUILT_IN and not filled and _omitted_when_empty(child_node) and key not in node.required:
                filled = _GONE
        if filled is child:
            continue
        if result is value:
            result = dict(value)
        if filled is _GONE:
            del result[key]
        else:
            result[key] = filled
    return _add_defaults(node, result, result is not value, rules)


def _keeps_null(node: Node, key: str, rules: Rules) -> bool:
    declared = node.fields.get(key)
    if rules is Rules.BUILT_IN:
        return False
    if declared is None or key in node.nullable:
        return True
    return rules is Rules.CUSTOM_APPLY and declared.shape is not Shape.ANY and key not in node.defaults


class _Gone:
    """Marks a field that is dropped."""


_GONE = _Gone()


def _omitted_when_empty(node: Node) -> bool:
    return node.shape is Shape.LIST or (node.shape is Shape.MAP and not node.struct)


def _add_defaults(node: Node, value: dict[str, Any], owned: bool, rules: Rules) -> dict[str, Any]:
    """Defaults of absent fields. `owned`: the dictionary is ours to change."""
    for key, default in node.defaults.items():
        if key not in value:
            value, owned = (value, True) if owned else (dict(value), True)
            value[key] = _fill(node.fields[key], default, None, rules) if key in node.fields else default
    for key in node.always:
        if key not in value and key in node.fields:
            value, owned = (value, True) if owned else (dict(value), True)
            value[key] = _fill(node.fields[key], {}, None, rules)
    special = SPECIAL_DEFAULTS.get(node.name)
    if special is None:
        return value
    extra = {key: wanted for key, wanted in special(value).items() if value.get(key) != wanted}
    return {**value, **extra} if extra else value


def zero(node: Node) -> dict[str, Any]:
    """An object of a built-in kind before anybody set anything: what a create is compared with to see what its author
    set. Structs the server always writes are there, required lists are null."""
    result: dict[str, Any] = {}
    for key in node.always:
        if key in node.fields:
            result[key] = zero(node.fields[key])
    for key, child in node.fields.items():
        if child.name == OBJECT_META:
            result[key] = {}
    for key in node.required:
        child = node.fields.get(key, ANY)
        if child.shape in (Shape.LIST, Shape.MAP):
            result.setdefault(key, None)
    return result


# ------------------------------------------------------------------------- defaults that depend on more than one field


def _container(container: dict[str, Any]) -> dict[str, Any]:
    if "imagePullPolicy" in container or not isinstance(container.get("image"), str):
        return {}
    name = container["image"].rpartition("/")[2]
    if "@" in name:
        return {"imagePullPolicy": "IfNotPresent"}
    tag = name.partition(":")[2]
    return {"imagePullPolicy": "Always" if tag in ("", "latest") else "IfNotPresent"}


def _rolling_update(strategy: dict[str, Any]) -> dict[str, Any]:
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return {}
    return {"rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%", **(strategy.get("rollingUpdate") or {})}}


def _stateful_update(strategy: dict[str, Any]) -> dict[str, Any]:
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return {}
    return {"rollingUpdate": {"partition": 0, **(strategy.get("rollingUpdate") or {})}}


def _service_port(port: dict[str, Any]) -> dict[str, Any]:
    return {"targetPort": port["port"]} if "port" in port and not port.get("targetPort") else {}


def _pod_spec(spec: dict[str, Any]) -> dict[str, Any]:
    # The deprecated alias mirrors the field.
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    return {"serviceAccountName": account, "serviceAccount": account} if account else {}


def _service_spec(spec: dict[str, Any]) -> dict[str, Any]:
    if spec.get("type", "ClusterIP") == "ExternalName":
        return {}
    # A headless service without a selector is assumed to have endpoints of both families.
    both = spec.get("clusterIP") == "None" and not spec.get("selector")
    families = {"ipFamilies": ["IPv4", "IPv6"] if both else ["IPv4"]}
    policy = {"ipFamilyPolicy": "RequireDualStack" if both else "SingleStack"}
    return {key: wanted for key, wanted in {**families, **policy}.items() if key not in spec}


def _network_policy_spec(spec: dict[str, Any]) -> dict[str, Any]:
    if spec.get("policyTypes"):
        return {}
    return {"policyTypes": ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]}


SPECIAL_DEFAULTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "networking.v1.NetworkPolicySpec": _network_policy_spec,
    "core.v1.Container": _container,
    "core.v1.PodSpec": _pod_spec,
    "core.v1.ServicePort": _service_port,
    "core.v1.ServiceSpec": _service_spec,
    "apps.v1.DeploymentStrategy": _rolling_update,
    "apps.v1.StatefulSetUpdateStrategy": _stateful_update,
}


def bad_base64(secret: dict[str, Any]) -> str:
    """Why a Secret's data cannot be decoded; empty when it can."""
    data = secret.get("data")
    for text in data.values() if isinstance(data, dict) else ():
        if isinstance(text, str):
            try:
                base64.b64decode(_LINE_BREAKS.sub("", text), validate=True)
            except ValueError:
                return "illegal base64 data at input byte 0"
    return ""


#: Where bytes stand in base64.
_ENCODED = {"/secrets": "data", "/configmaps": "binaryData"}
_LINE_BREAKS = re.compile(r"[\r\n]")


def _without_line_breaks(value: dict[str, Any], field: str) -> dict[str, Any]:
    """Bytes are decoded and encoded again: the line breaks that tools put into base64 do not last."""
    texts = value.get(field)
    if not isinstance(texts, dict) or not any("\n" in text or "\r" in text for text in texts.values()):
        return value
    return {**value, field: {name: _LINE_BREAKS.sub("", text) for name, text in texts.items()}}


def _fold_string_data(secret: dict[str, Any]) -> dict[str, Any]:
    plain = secret.get("stringData")
    if plain is None:
        return secret
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in plain.items() if isinstance(text, str)}
    result = {key: value for key, value in secret.items() if key != "stringData"}
    if encoded:
        result["data"] = {**secret.get("data", {}), **encoded}
    return result


# ------------------------------------------------------------------------------------------------------- quantities

_QUANTITY_PATTERN = re.compile(r"^([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|)$")
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


@lru_cache(maxsize=4096)
def _canonical(text: str) -> str:
    match = _QUANTITY_PATTERN.match(text)
    if match is None:
        return text
    number, suffix = Decimal(match[1]), match[2]
    if suffix in _BINARY[1:]:
        whole = int((number * 1024 ** _BINARY.index(suffix)).to_integral_value(ROUND_UP))
        power = 0
        while whole and whole % 1024 == 0 and power < len(_BINARY) - 1:
            whole, power = whole // 1024, power + 1
        return f"{whole}{_BINARY[power]}"
    nano = int((number * Decimal(10) ** (_DECIMAL[suffix] + 9)).to_integral_value(ROUND_UP))
    exponent = -9
    while nano and nano % 1000 == 0 and exponent < 18:
        nano, exponent = nano // 1000, exponent + 3
    if not nano:
        return "0"
    name = next(letter for letter, power in _DECIMAL.items() if power == exponent)
    return f"{nano}{name}"


def canonical_quantity(value: Any) -> Any:
    """A quantity as the server writes it back: "1000m" is "1", "0.5" is "500m", "1024Mi" is "1Gi"."""
    if isinstance(value, str):
        return _canonical(value)
    return _canonical(str(value)) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
