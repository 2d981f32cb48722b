"""The simulated API server beside the real one: the same random writes, the same answers.

A seeded stream of applies (forced or not), merge patches, creates, status patches, dry runs and deletes by three
managers on two objects of each kind goes to both servers. After every step the answers and the live objects must agree:
status code, reason and causes of a refusal, values, generation, ownership, and whether the resourceVersion moved. The
seeds are fixed; a failure prints its step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from reconciler.shell.kube_http import transport_from_kubeconfig
from tests.contract.api import Answer, Api, Object
from tests.contract.conftest import prepared, simulated
from tests.control_plane.server import ControlPlane

STEPS = 150
KINDS = ("specimens", "flinkdeployments", "deployments", "configmaps", "services")


class Draw:
    """Random parts of objects."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def some(self, **parts: Callable[[], Any]) -> Object:
        """Each part with a probability of one half."""
        return {name: part() for name, part in parts.items() if self.chance(0.5)}

    def pick(self, *values: Any) -> Any:
        return self.random.choice(values)

    def map(self) -> Object:
        return {self.pick(*"abc"): self.pick(*"xyz") for _ in range(self.random.randint(0, 3))}

    def subset(self, *values: Any) -> list[Any]:
        return self.random.sample(values, self.random.randint(0, len(values)))

    def metadata(self) -> Object:
        parts = {"labels": self.map, "annotations": self.map}
        return {name: part() for name, part in parts.items() if self.chance(0.3)}

    def specimens(self) -> Object:
        def port() -> Object:
            return {"port": self.pick(1, 2, 3), **self.some(protocol=lambda: self.pick("TCP", "UDP"), name=lambda: "n")}

        spec = self.some(
            size=lambda: self.pick(1, 2, 3, 11, "x"), labels=self.map, whole=self.map,
            words=lambda: self.subset("x", "y"),
            tags=lambda: self.subset("x", "y", "z"), ports=lambda: [port() for _ in range(self.random.randint(0, 2))],
            free=lambda: {"p": self.pick(1, "s", [1], {}, {"k": {"l": None}}), "q": self.map()},
            nothing=lambda: self.pick(None, "x"), amount=lambda: self.pick(1, "50%"),
        )  # fmt: skip
        return {"spec": {"title": self.pick("a", "a", "b", "B", None), **spec}}

    def flinkdeployments(self) -> Object:
        def job() -> Object:
            return self.some(
                jarURI=lambda: self.pick("x", "y"), parallelism=lambda: self.pick(1, 2),
                upgradeMode=lambda: self.pick("savepoint", "stateless"), args=lambda: self.subset("a", "b"),
            )  # fmt: skip

        def template() -> Object:
            container = {"name": "main", **self.some(env=lambda: [{"name": "A", "value": self.pick("1", "2")}])}
            return {"spec": {"containers": [container]}, **self.some(metadata=lambda: {"labels": self.map()})}

        return {
            "spec": self.some(
                image=lambda: self.pick("i:1", "i:2"), flinkVersion=lambda: self.pick("v1_20", "v1_19", "v9"), job=job,
                flinkConfiguration=self.map, podTemplate=template, restartNonce=lambda: self.pick(1, 2, "x"),
                taskManager=lambda: {"resource": {"cpu": self.pick(1, 0.5), "memory": "1g"}},
            )
        }  # fmt: skip

    def deployments(self) -> Object:
        def port(number: int) -> Object:
            return {"containerPort": number, **self.some(protocol=lambda: "UDP")}

        def limits() -> Object:
            return {"limits": {"cpu": self.pick("1", "1000m", "0.5"), "memory": self.pick("1Gi", "1024Mi")}}

        def container(name: str) -> Object:
            extra = self.some(
                env=lambda: [{"name": name, "value": "1"} for name in self.subset("A", "B")],
                ports=lambda: [port(number) for number in self.subset(80, 81)],
                resources=limits,
            )
            return {"name": name, "image": self.pick("i", "i:1", "r/i:latest"), **extra}

        template = {
            "metadata": {"labels": {"app": "x", **self.map()}},
            "spec": {"containers": [container(name) for name in self.subset("c", "d") or ["c"]]},
        }
        strategies = ({"type": "Recreate"}, {"rollingUpdate": {"maxSurge": 1}})
        selector = {"matchLabels": {"app": self.pick(*"xxxxxxxxy")}}
        extra = self.some(replicas=lambda: self.pick(0, 1, 3), strategy=lambda: self.pick(*strategies))
        return {"spec": {"selector": selector, "template": template, **extra}}

    def configmaps(self) -> Object:
        return self.some(data=self.map)

    def services(self) -> Object:
        ports = [
            {"port": port, "name": f"p{port}", **self.some(targetPort=lambda: 8080)}
            for port in self.subset(80, 81) or [82]
        ]
        return {"spec": {"selector": {"app": self.pick("x", "y")}, "ports": ports}}


def agreed(answer: Answer) -> Any:
    """What must be the same on both: all but identities, times, addresses and the wording of a list of reasons."""
    body = answer.body
    if not isinstance(body, dict):
        return answer.status, body
    if body["kind"] == "Status":
        causes = body.get("details", {}).get("causes", [])
        listed = sorted((cause.get("field", ""), cause.get("reason", ""), cause["message"]) for cause in causes)
        return answer.status, body.get("reason"), listed if answer.status != 400 else None
    metadata = dict(body["metadata"])
    present = [name for name in ("uid", "resourceVersion", "creationTimestamp") if metadata.pop(name, None)]
    entries = metadata.pop("managedFields", [])
    owners = {
        (one["manager"], one["operation"], one.get("subresource")): (one["fieldsV1"], "time" in one) for one in entries
    }
    rest = {key: value for key, value in body.items() if key != "metadata"}
    if body["kind"] == "Service":
        rest["spec"] = {key: value for key, value in body["spec"].items() if not key.startswith("clusterIP")}
    return answer.status, present, metadata, owners, rest


@dataclass
class Both:
    """The two servers."""

    real: Api
    simulated: Api

    def step(self, draw: Draw) -> tuple[str, list[Any]]:
        """One random write on both. Returns what it was, and what each server made of it."""
        plural, name, manager = draw.pick(*KINDS), draw.pick("a", "b"), draw.pick("one", "two", "three")
        body = {**getattr(draw, plural)(), "metadata": draw.metadata()}
        options = {"dryRun": "All"} if draw.chance(0.1) else {}
        kind = draw.pick("apply", "apply", "force", "force", "merge", "label", "create", "status", "delete")
        label = {"metadata": {"labels": {draw.pick(*"abc"): draw.pick("q", None)}}}
        states = {"specimens": {"phase": draw.pick("x", "y")}, "flinkdeployments": {"error": draw.pick("x", None)}}

        def write(api: Api) -> Answer:
            if kind in ("apply", "force"):
                forced = {"force": "true"} if kind == "force" else {}
                return api.apply(plural, name, body, manager=manager, **forced, **options)
            if kind == "create":
                return api.create(plural, name, body, fieldManager=manager, **options)
            if kind == "delete":
                return api.delete(plural, name, None, **options)
            if kind == "status" and plural in states:
                return api.merge(plural, name, {"status": states[plural]}, manager=manager, sub="status", **options)
            patch = {key: part for key, part in body.items() if key != "metadata"} if kind == "merge" else label
            return api.merge(plural, name, patch, manager=manager, **options)

        def facts(api: Api) -> Any:
            before = api.get(plural, name)
            answer = write(api)
            after = api.get(plural, name)
            versions = [one.body["metadata"].get("resourceVersion") for one in (before, after)]
            return agreed(answer), agreed(after), versions[0] == versions[1]

        return f"{kind} {plural}/{name} by {manager} {options}: {body}", [facts(self.real), facts(self.simulated)]


@pytest.fixture
def both(control_plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[Both]:
    """A namespace of this test's own on both servers."""
    with closing(asyncio.new_event_loop()) as loop:
        transport = loop.run_until_complete(transport_from_kubeconfig(control_plane.kubeconfig))
        engine = simulated().transport()
        namespace = f"differential-{request.node.callspec.params['seed']}"
        apis = [Api("both", each, loop, namespace, f"{namespace}-spare") for each in (transport, engine)]
        yield Both(*(prepared(api) for api in apis))
        loop.run_until_complete(transport.close())


@pytest.mark.controlplane
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_same_writes_get_the_same_answers(both: Both, seed: int) -> None:
    draw = Draw(seed)
    for step in range(STEPS):
        what, (real, simulated_facts) = both.step(draw)
        assert simulated_facts == real, f"seed {seed}, step {step}: {what}"
