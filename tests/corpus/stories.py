"""A story: an object is applied, edited by others and moved to later releases, and looked at after every step.

Every step is played on each server that takes part (the first one's object is what edits are drawn on); after each, the
client's comparison is held against that server's dry-run, and all servers must tell the same. A fault is an
AssertionError with the whole story.

    Stories(servers, figures).play(Draw(Random(7)))
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from reconciler.core.explain_diff import prepared
from reconciler.core.judge import means_the_same
from reconciler.core.model import Sync
from reconciler.sim.schema import Resource
from tests.corpus import edits
from tests.corpus.drawing import Draw
from tests.corpus.growth import grown, resource_of
from tests.corpus.kinds import PLURALS, build
from tests.corpus.oracle import Look, Outcome, look
from tests.corpus.servers import Answer, Object, Server

STEPS_MAX = 4
_SECRETS = ("aHVudGVy", "hunter2", "c3dvcmRmaXNo", "swordfish")


@dataclass(slots=True)
class Figures:
    """What a run of the corpus saw."""

    stories: int = 0
    taken: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    unchanged: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)

    @property
    def taken_share(self) -> float:
        """Of all declared objects, those that the server took as they were drawn."""
        return self.taken / max(1, self.stories)

    def text(self) -> str:
        """For people."""
        looks = sum(self.answers.values())
        lines = [
            f"{self.stories} stories, {self.taken_share:.0%} of the objects were taken as drawn, {looks} looks",
            "steps: " + ", ".join(f"{name} {count}" for name, count in sorted(self.steps.items())),
            "said / the server: " + ", ".join(f"{a}/{b} {n}" for (a, b), n in sorted(self.answers.items())),
            "unchanged objects: " + ", ".join(f"{name} {count}" for name, count in sorted(self.unchanged.items())),
            "asked on unchanged objects: " + "; ".join(f"{why} {count}" for why, count in self.asked.most_common(25)),
            "refused: " + "; ".join(f"{why} {count}" for why, count in self.refused.most_common(12)),
        ]
        return "\n".join(lines)


@dataclass(slots=True)
class Stories:
    """Plays stories on `servers`."""

    servers: list[Server]
    figures: Figures
    plurals: tuple[str, ...] = PLURALS
    _count: int = 0

    def play(self, draw: Draw) -> None:
        """One story, with an object of its own that is deleted at the end."""
        self._count += 1
        resource = resource_of(draw.pick(*self.plurals))
        story = Story(self.servers, self.figures, resource, f"c{self._count}", draw)
        try:
            story.play()
        finally:
            for server in self.servers:
                server.delete(resource, story.name)


class Story:
    """One object's life. `declared` is what we want now, `lives` what each server holds."""

    def __init__(self, servers: list[Server], figures: Figures, resource: Resource, name: str, draw: Draw) -> None:
        self._servers = servers
        self._figures = figures
        self._resource = resource
        self._draw = draw
        self.name = name
        self.declared: Object = {}
        self.lives: list[Object] = []
        self.told: list[str] = []

    def play(self) -> None:
        """From the first apply to the last look."""
        self._figures.stories += 1
        if not self._begin():
            return
        for _ in range(self._draw.number(1, STEPS_MAX)):
            step = self._draw.pick(*_STEPS)
            self._figures.steps[step] += 1
            if step == "release":
                self._release()
            else:
                getattr(self, f"_{step}")()
                self._look(step)

    # ---- our own writes

    def _whole(self, body: Object) -> Object:
        """As the daemon would send it."""
        metadata = {"name": self.name, "namespace": "", **body["metadata"]}
        whole = {"apiVersion": self._resource.api_version, "kind": self._resource.kind, **body, "metadata": metadata}
        return prepared(copy.deepcopy(whole))

    def _sent(self, server: Server, manifest: Object) -> Object:
        return {**manifest, "metadata": {**manifest["metadata"], "namespace": server.namespace}}

    def _begin(self) -> bool:
        """Apply it for the first time; what grew beyond the server's rules is taken back."""
        plain = build(self._resource.plural, self._draw)
        body = plain
        for _ in range(self._draw.number(0, 2)):
            body = grown(self._resource.node, body, self._draw)
        for attempt in (body, plain):
            self.declared = self._whole(attempt)
            answers = self._written(
                lambda server: server.apply(self._resource, self._sent(server, self.declared), force=False)
            )
            self._tell("apply", self.declared, answers)
            if answers[0].is_object:
                self._figures.taken += attempt is body
                self._take(answers)
                self._look("apply", applied=True)
                return True
            self._figures.refused[f"{self._resource.plural}: {answers[0].status} {answers[0].says[-110:]}"] += 1
            if attempt is plain or body == plain:
                break
        return False

    def _release(self) -> None:
        """The next release: one or two differences, looked at, applied for real and looked at again."""
        later = self.declared
        for _ in range(self._draw.number(1, 2)):
            name = self._draw.pick("change", "drop", "respell", "grow", "reorder")
            edit = edits.EDITS[name](later, self._resource.node, self._draw)
            later = prepared(edit(later))
            later["metadata"] = {**later["metadata"], "name": self.name}
        before, self.declared = self.declared, later
        looks = self._look("next release")
        if looks[0].outcome is Outcome.REFUSED:
            self.declared = before
            return
        self._apply()
        # A keyed list or a set that is emptied is taken away by the first apply, and is there, empty, after the second.
        if self._look("applied release")[0].outcome in (Outcome.VALUES, Outcome.OWNERSHIP):
            self._figures.steps["applied twice"] += 1
            self._apply()
        self._look("applied release", applied=True)

    def _apply(self) -> None:
        """Apply for real what a dry-run of was taken."""
        answers = self._written(
            lambda server: server.apply(
                self._resource, self._sent(server, self.declared), uid=self._live(server)["metadata"]["uid"]
            )
        )
        self._tell("apply", self.declared, answers)
        if not answers[0].is_object:
            raise AssertionError(self._story(f"a dry-run was taken, the apply was not: {answers[0].says}"))
        self._take(answers)

    # ---- what others do

    def _each(self, what: str, write: Callable[[Server, Object], Answer]) -> list[Answer]:
        answers = self._written(lambda server: write(server, self._live(server)))
        self._tell(what, None, answers)
        self._take([server.get(self._resource, self.name) for server in self._servers])
        return answers

    def _edited(self, edit: edits.Edit, what: str) -> None:
        def write(server: Server, live: Object) -> Answer:
            return server.put(self._resource, edit(live), "kubectl-edit")

        self.told.append(f"edit: {_difference(self.lives[0], edit(self.lives[0]))}")
        self._each(what, write)

    def _edit(self) -> None:
        name = self._draw.pick(*edits.EDITS)
        chosen = self.declared if self._draw.chance(60) and name in ("change", "drop") else self.lives[0]
        self._edited(edits.EDITS[name](chosen, self._resource.node, self._draw), f"edit ({name})")

    def _back(self) -> None:
        """Changed and put back: the value is ours again, the ownership is not."""
        before = [copy.deepcopy(live) for live in self.lives]
        self._edited(edits.draw_change(self.declared, self._resource.node, self._draw), "edit, to be put back")
        originals = dict(zip([server.name for server in self._servers], before, strict=True))

        def write(server: Server, live: Object) -> Answer:
            metadata = {**originals[server.name]["metadata"], "resourceVersion": live["metadata"]["resourceVersion"]}
            return server.put(self._resource, {**originals[server.name], "metadata": metadata}, "kubectl-edit")

        self._each("put back", write)

    def _apply_by_other(self) -> None:
        """Another manager applies part of what we declare, at times with a value of its own, or lets go of it."""
        part = edits.part_of(self.declared, self._draw)
        whole = self._whole(part)
        if self._draw.chance(40):
            whole = edits.draw_change(whole, self._resource.node, self._draw)(whole)
            whole["metadata"]["name"] = self.name
        force = self._draw.chance(50)
        self.told.append(f"other applies: {json.dumps(whole)}")
        self._each(
            "apply by another",
            lambda server, _: server.apply(self._resource, self._sent(server, whole), manager="helm", force=force),
        )

    def _status(self) -> None:
        if "status" not in self._resource.subresources:
            return self._edit()
        body = {"status": _STATUS.get(self._resource.plural, {"observedGeneration": 1})}
        self._each("status", lambda server, _: server.merge(self._resource, self.name, body, "controller", "status"))
        return None

    def _scale(self) -> None:
        if "scale" not in self._resource.subresources or len(self._servers) > 1:  # the simulated server has none
            return self._edit()
        body = {"spec": {"replicas": self._draw.pick(1, 2, 4)}}
        self._each("scale", lambda server, _: server.merge(self._resource, self.name, body, "hpa", "scale"))
        return None

    # ---- servers

    def _live(self, server: Server) -> Object:
        return self.lives[self._servers.index(server)]

    def _written(self, write: Callable[[Server], Answer]) -> list[Answer]:
        """One write on each server. What the first refuses the others are not asked: they need not know every rule."""
        first = write(self._servers[0])
        return [first, *(write(server) for server in self._servers[1:])] if first.is_object else [first]

    # ---- looking

    def _take(self, answers: list[Answer]) -> None:
        assert all(answer.is_object for answer in answers), self._story(f"answers differ: {[a.says for a in answers]}")
        self.lives = [answer.body for answer in answers]

    def _look(self, step: str, *, applied: bool = False) -> list[Look]:
        looks = []
        secrets = _SECRETS if self._resource.plural == "secrets" else ()
        for server, live in zip(self._servers, self.lives, strict=True):
            desired = self._sent(server, self.declared)
            answer = server.apply(self._resource, desired, uid=live["metadata"]["uid"], dry_run=True)
            looks.append(look(desired, live, answer, secrets))
        first = looks[0]
        said = f"{first.found.sync} ({first.found.reason.message})"
        self.told.append(f"look after {step}: {said}, server: {first.outcome} {first.refusal}")
        self._count(first)
        for server, live, each in zip(self._servers, self.lives, looks, strict=True):
            if each.faults:
                raise AssertionError(self._story(f"{server.name}: " + "; ".join(each.faults)))
            # The server may refuse to repeat what it took: then the client's word counts, as in the daemon. An object
            # with an empty key is beyond the server itself.
            refused = each.outcome is Outcome.REFUSED
            repeatable = not refused or not (means_the_same(self.declared, live) or "typed live" in each.refusal)
            if applied and repeatable and not (each.found.sync is Sync.IN_SYNC or each.outcome is Outcome.EQUAL):
                raise AssertionError(self._story(f"{server.name}: just applied, and {each.found}, {each.outcome}"))
            if each.told != first.told and first.outcome is not Outcome.REFUSED:
                raise AssertionError(
                    self._story(f"{server.name} tells {each.told}, {self._servers[0].name} {first.told}")
                )
        return looks

    def _count(self, first: Look) -> None:
        said = "ownership" if first.found.ownership_only else first.found.sync.value
        self._figures.answers[said, first.outcome.value] += 1
        if first.outcome is Outcome.EQUAL:
            self._figures.unchanged[said] += 1
            if first.found.sync is Sync.ASK:
                where, _, why = first.found.reason.message.partition(";")[0].rpartition(": ")
                self._figures.asked[f"{self._resource.kind} {where.rpartition('.')[2]}: {why}"] += 1

    def _tell(self, what: str, body: Object | None, answers: list[Answer]) -> None:
        said = [f"{answer.status} {'' if answer.is_object else answer.says}" for answer in answers]
        self.told.append(f"{what}: {' | '.join(said)}" + (f" {json.dumps(body)}" if body else ""))
        if len({answer.is_object for answer in answers}) > 1:
            raise AssertionError(self._story(f"the servers disagree on {what}"))

    def _story(self, fault: str) -> str:
        lines = [fault, f"declared: {json.dumps(self.declared)}"]
        lines += [f"live: {json.dumps(live)}" for live in self.lives]
        return "\n".join([*lines, "the story:", *self.told])


def _difference(before: Any, after: Any, path: str = "") -> str:
    """Where two values differ first."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name) or (name in before) != (name in after):
                return _difference(before.get(name), after.get(name), f"{path}.{name}")
    return f"{path}: {json.dumps(before)} -> {json.dumps(after)}"


_STEPS = ("release", "edit", "edit", "back", "apply_by_other", "status", "scale", "release")
_STATUS: dict[str, Object] = {
    "specimens": {"phase": "x"},
    "flinkdeployments": {"error": "x", "lifecycleState": "STABLE"},
    "flinksessionjobs": {"error": "x"},
    "services": {"loadBalancer": {}},
    "persistentvolumeclaims": {"phase": "Bound"},
    "resourcequotas": {"used": {"pods": "1"}},
    "jobs": {"active": 1},
    "cronjobs": {"lastScheduleTime": "2026-03-01T10:00:00Z"},
    "ingresses": {"loadBalancer": {}},
}
