"""Writes that hang: a webhook that answers nothing delays the targets it stands before, and nobody else for long."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter

from reconciler.core.model import Now, Reason, Target
from reconciler.shell.daemon import DaemonSettings
from reconciler.shell.judging import ASKING_PAUSE
from reconciler.shell.kube_cluster import DRY_RUN_TIMEOUT_S
from reconciler.shell.kube_exchange import WRITE_TIMEOUT_S
from reconciler.shell.perform import Later
from reconciler.shell.performing import AT_ONCE
from reconciler.shell.retries import RETRY_MAX_S, Retries
from reconciler.sim.admission import Answer, Review, Webhook
from reconciler.sim.plan import Fault, FaultKind
from reconciler.sim.scenarios import application_file
from reconciler.sim.world import World
from tests.sim.test_lane import image, play_fleet

#: What may pass besides waiting for room: the poll of Git, and the seconds in which this looks.
SOON_S = 45.0


class Hanging:
    """Writes of the first `count` applications get no answer while it is `on`."""

    def __init__(self, count: int) -> None:
        self.prefixes = tuple(f"/namespaces/app{number}/" for number in range(count))
        self.on = False
        self.tried: Counter[str] = Counter()

    async def io(self, point: str) -> Fault:
        """The fate of the call at `point`."""
        where = next((prefix for prefix in self.prefixes if prefix in point), "")
        if not (self.on and where and point.startswith("c0 PATCH")):
            return Fault()
        self.tried[where] += 1
        return Fault(FaultKind.BLACK_HOLE)


def push(world: World, name: str, tag: str) -> None:
    world.repository.commit({f"apps/{name}/app.yaml": application_file(name, tag)}, tag)


def drift(world: World, names: list[str]) -> None:
    """Somebody changes what these own: their repairs are to be written."""
    for name in names:
        world.clusters["c0"].edit("", "ConfigMap", name, f"{name}-0", {"data": {"tag": "hand"}})


def drifted(world: World, names: list[str]) -> list[str]:
    """Those that are not repaired."""
    found = {name: world.clusters["c0"].read("", "ConfigMap", name, f"{name}-0") for name in names}
    return [name for name, live in found.items() if live is None or live["data"]["tag"] == "hand"]


async def takes(world: World, name: str, tag: str) -> float:
    return await world.until(lambda: image(world, "c0", name) == tag, 3000, every_s=1)


def test_targets_that_hang_hold_the_others_up_for_one_timeout_and_then_no_more() -> None:
    count = 12
    plan = Hanging(count)
    hanging = [f"app{number}" for number in range(count)]

    async def story(world: World) -> None:
        plan.on = True
        drift(world, hanging)
        await world.sleep(5)
        push(world, "app12", "2.0")
        # All of them had to hang once before anybody could know.
        assert await takes(world, "app12", "2.0") <= count / AT_ONCE * WRITE_TIMEOUT_S + SOON_S
        await world.sleep(300)
        plan.tried.clear()
        for tag in ("3.0", "4.0", "5.0"):
            push(world, "app12", tag)
            assert await takes(world, "app12", tag) <= SOON_S
            await world.sleep(100)
        await world.sleep(900)
        # None of those that hang is forgotten over the others.
        assert min(plan.tried[prefix] for prefix in plan.prefixes) >= 3, plan.tried
        plan.on = False
        await world.until(lambda: not drifted(world, hanging), 2 * RETRY_MAX_S)
        await world.until(world.settled, 1800)

    play_fleet(story, clusters=1, applications=count + 1, plan=plan)


def test_one_target_that_hangs_puts_off_nobody_on_a_cluster_that_answers() -> None:
    plan = Hanging(1)
    names = [f"app{number}" for number in range(1, 31)]

    async def story(world: World) -> None:
        plan.on = True
        drift(world, ["app0"])
        await world.sleep(300)
        for _ in range(3):  # some of them are still to be written whenever it comes to nothing
            drift(world, names)
            await world.until(lambda: not drifted(world, names), 45, every_s=1)
        plan.on = False
        await world.until(lambda: not drifted(world, ["app0"]), 2 * RETRY_MAX_S)
        await world.until(world.settled, 1800)

    settings = DaemonSettings(writes_per_second_and_cluster=1.0)
    play_fleet(story, clusters=1, applications=31, plan=plan, settings=settings)


def test_a_retry_that_becomes_due_while_the_lane_judges_is_not_forgotten() -> None:
    """A round begins with writing, then judges, which may take long, and asks at last when to look again."""

    async def story(world: World) -> None:
        assert world.daemon is not None
        performing, target = world.daemon.lanes["c0"].performing, Target("sim/app0", "c0")
        performing.start_due()
        now = world.daemon.ports.clock.now()
        performing.retries.put_off(target, Later(Reason("WriteLimit", "spent"), after_s=1.0), now)
        await asyncio.sleep(2)
        assert performing.times() == [now.monotonic + 1.0], "it is due, and nobody has begun with it"
        performing.start_due()
        assert performing.times() == [], "who finds no room is begun with when another one ends"

    play_fleet(story, clusters=1)


def test_who_came_to_nothing_slowly_is_slow_until_it_comes_to_something_or_fails_at_once() -> None:
    retries, now = Retries(), Now(1e9, 100.0, 1)
    target = Target("fleet/app0", "c0")
    failed = Later(Reason("InternalError", "no answer"), unreachable=True)
    retries.put_off(target, failed, now, slow=True)
    assert retries.is_slow(target)
    retries.put_off(target, failed, now)
    assert not retries.is_slow(target)
    retries.put_off(target, failed, now, slow=True)
    retries.put_off(target, Later(Reason("WriteLimit", "spent"), after_s=1.0), now)
    assert retries.is_slow(target), "it was not tried"
    retries.done(target)
    assert not retries.is_slow(target)
    retries.put_off(target, failed, now, slow=True)
    retries.clear()
    assert not retries.is_slow(target), "the whole cluster was away"


def test_a_question_that_hangs_holds_judging_up_for_a_sixth_of_the_time_at_most() -> None:
    """Live is not what was sent, for a webhook rewrites it, and the server hangs when it is asked whether it would."""
    asked: list[float] = []

    class HangingQuestions:
        on = False

        async def io(self, point: str) -> Fault:
            if not (self.on and point.startswith("c0 PATCH") and point.endswith("/namespaces/app0/configmaps/app0-0")):
                return Fault()
            asked.append(asyncio.get_running_loop().time())
            return Fault(FaultKind.BLACK_HOLE)

    plan = HangingQuestions()

    def localize(review: Review) -> Answer:
        assert review.object is not None
        tag = review.object["data"]["tag"]
        plan.on = plan.on or tag == "2.0"  # it is written: what comes now are questions
        operation = {"op": "replace", "path": "/data/tag", "value": f"site-{tag}"}
        return Answer(patch=[] if tag.startswith("site-") else [operation])

    async def story(world: World) -> None:
        cluster = world.clusters["c0"]
        webhook = Webhook("localize.example.com", localize, mutating=True, namespace="app0", resources=("configmaps",))
        cluster.server.webhooks.append(webhook)
        push(world, "app0", "2.0")
        await world.until(lambda: len(asked) > 0, 3000, every_s=1)
        asked.clear()
        for _ in range(10):
            drift(world, ["app1"])
            await world.until(lambda: not drifted(world, ["app1"]), DRY_RUN_TIMEOUT_S + 5, every_s=1)
            await world.sleep(700)  # so that none of these repairs is one of several in a row
        gaps = [later - earlier for earlier, later in itertools.pairwise(asked)]
        assert gaps
        assert min(gaps) >= (1 + ASKING_PAUSE) * DRY_RUN_TIMEOUT_S

    play_fleet(story, clusters=1, applications=2, plan=plan)
