"""Lanes: one cluster that hangs delays only itself; limits, refusals and what is given up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from reconciler.core.model import IntentResult, IntentState, Now, Reason, RolloutState, Target, TargetState
from reconciler.shell.daemon import DaemonSettings
from reconciler.shell.limiter import Limiter, WriteLimits
from reconciler.shell.perform import Later
from reconciler.shell.retries import Retries
from reconciler.shell.transport import Request
from reconciler.sim.checkers import Checkers
from reconciler.sim.loop import run
from reconciler.sim.plan import Fault, FaultKind
from reconciler.sim.scenarios import FLEET_FILE, FLINK, QUICK, application_file, cluster_file
from reconciler.sim.schema import load_catalog
from reconciler.sim.world import World, play

ONE_WAVE = """\
apiVersion: reconciler.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: quick}
spec:
  waves:
  - {name: all, size: 100%, bake: 10s, maxConcurrent: 100%, maxFailures: 0, maxUnreachable: 50%}
  progressDeadline: 5m
  onFailure: halt
"""


class BlackHole:
    """Every request to `cluster` is swallowed from `since_s` on, and only its timeout ends it."""

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self.on = False

    async def io(self, point: str) -> Fault:
        """The fate of the call at `point`."""
        return Fault(FaultKind.BLACK_HOLE) if self.on and point.startswith(f"{self.cluster} ") else Fault()


def play_fleet(
    story: Callable[[World], Awaitable[None]], clusters: int = 2, applications: int = 1, **more: object
) -> World:
    """Tell `story` of a fleet whose first commit was installed."""
    world = World(timings=QUICK, **more)  # type: ignore[arg-type]  # fields of World

    async def told(world: World) -> None:
        files = {"fleet.yaml": FLEET_FILE, "policies/quick.yaml": ONE_WAVE}
        for number in range(clusters):
            world.add_cluster(f"c{number}")
            files[f"clusters/c{number}.yaml"] = cluster_file(f"c{number}", "eu", "rest")
        Checkers(world, slack_s=1.0)
        for number in range(applications):
            files[f"apps/app{number}/app.yaml"] = application_file(f"app{number}", "1.0")
        world.repository.commit(files, "first")
        await world.start()
        await world.sleep(10)
        await world.until(world.settled, 1800)
        await story(world)

    return run(play(world, told))


def image(world: World, cluster: str, name: str = "app0") -> str:
    live = world.clusters[cluster].read(FLINK, "FlinkDeployment", name, name)
    return live["spec"]["image"].rpartition(":")[2] if live is not None else ""


@pytest.mark.parametrize("how", ["black hole", "silent"])
def test_a_cluster_that_answers_nothing_delays_only_itself(how: str) -> None:
    hole = BlackHole("c0")
    times: dict[str, float] = {}

    async def story(world: World) -> None:
        for tag in ("2.0", "3.0"):
            if tag == "3.0" and how == "black hole":
                hole.on = True
            elif tag == "3.0":
                world.cut("c0", silent=True)
            world.repository.commit({"apps/app0/app.yaml": application_file("app0", tag)}, tag)
            begun = world.time()
            await world.until(lambda tag=tag: image(world, "c1") == tag, 600, every_s=1)  # type: ignore[misc]  # bound now
            times[tag] = world.time() - begun
        assert image(world, "c0") == "2.0"
        hole.on = False
        world.mend("c0")
        await world.until(lambda: image(world, "c0") == "3.0" and world.settled(), 1800)

    play_fleet(story, plan=hole)
    assert times["3.0"] <= times["2.0"] + world_poll_s()


def world_poll_s() -> float:
    """How much later a commit may be seen for no reason but the poll."""
    return World().poll_s * 1.2 + 1


def test_what_a_cluster_cannot_take_is_blocked_and_the_others_go_on() -> None:
    async def story(world: World) -> None:
        older = load_catalog().variant(without_fields={"FlinkDeployment": [("spec", "image")]})
        world.clusters["c0"].server.set_catalog(older)
        world.repository.commit({"apps/app0/app.yaml": application_file("app0", "2.0")}, "two")
        await world.until(lambda: image(world, "c1") == "2.0", 600)
        await world.sleep(60)
        (rollout,) = world.ask(lambda tx: tx.rollouts(active=True))
        rows = {row.target.cluster: row for row in world.ask(lambda tx: tx.rollout_targets(rollout.id))}
        assert rollout.state is RolloutState.ACTIVE
        assert rows["c0"].state is TargetState.BLOCKED
        assert rows["c0"].reason.code == "SchemaMismatch"
        assert rows["c1"].state is TargetState.SUCCEEDED
        # What would have been written after the refused object was given up.
        states = {
            intent.key.kind: intent.state
            for intent in world.ask(lambda tx: tx.intents(cluster="c0"))
            if intent.digest == rows["c0"].to_digest
        }
        assert states["FlinkDeployment"] is IntentState.FAILED
        assert IntentState.PENDING not in states.values()

    play_fleet(story)


def test_a_suspended_cluster_is_not_written_to_and_nothing_fails_for_it() -> None:
    async def story(world: World) -> None:
        suspended = cluster_file("c0", "eu", "rest").replace("credentials: c0", "credentials: c0, suspend: true")
        world.repository.commit({"clusters/c0.yaml": suspended}, "suspend c0")
        await world.sleep(60)
        before = len(world.clusters["c0"].server.log)
        world.repository.commit({"apps/app0/app.yaml": application_file("app0", "2.0")}, "two")
        await world.until(lambda: image(world, "c1") == "2.0", 600)
        await world.sleep(900)  # longer than the progress deadline
        assert [entry for entry in world.clusters["c0"].server.log[before:] if entry.manager == "reconciler"] == []
        (rollout,) = world.ask(lambda tx: tx.rollouts(active=True))
        assert rollout.state is RolloutState.ACTIVE
        world.repository.commit({"clusters/c0.yaml": cluster_file("c0", "eu", "rest")}, "go on")
        await world.until(lambda: image(world, "c0") == "2.0" and world.settled(), 1800)

    play_fleet(story)


def test_a_removed_cluster_does_not_hold_the_rollout_for_ever() -> None:
    async def story(world: World) -> None:
        world.cut("c0")
        world.repository.commit({"apps/app0/app.yaml": application_file("app0", "2.0")}, "two")
        await world.until(lambda: image(world, "c1") == "2.0", 600)
        world.repository.commit({"clusters/c0.yaml": None, "apps/app0/app.yaml": application_file("app0", "3.0")}, "go")
        await world.until(lambda: image(world, "c1") == "3.0", 600)
        await world.until(world.settled, 600)

    play_fleet(story)


def test_write_limits_hold_at_a_restart_and_nothing_is_lost() -> None:
    settings = replace(DaemonSettings(), writes_per_second=2.0, writes_per_second_and_cluster=1.0)

    async def story(world: World) -> None:
        files = {f"apps/app{number}/app.yaml": application_file(f"app{number}", "2.0", 3) for number in range(3)}
        world.repository.commit(files, "two")
        await asyncio.sleep(40)
        world.kill()  # with much of it still to be written
        await world.until(lambda: len(world.deaths) == 1, 60)
        await world.sleep(20)
        await world.until(world.settled, 3600)
        assert {image(world, cluster, f"app{number}") for cluster in ("c0", "c1") for number in range(3)} == {"2.0"}

    play_fleet(story, applications=3, settings=settings)


class LostOnce:
    """The first write of a FlinkDeployment takes effect, its answer is lost, and so is its cluster."""

    def __init__(self) -> None:
        self.world: World | None = None
        self.lost = False

    async def io(self, point: str) -> Fault:
        """The fate of the call at `point`."""
        if self.world is None or self.lost or not (point.startswith("c0 PATCH") and "flinkdeployments" in point):
            return Fault()
        self.lost = True
        asyncio.get_running_loop().call_later(0.0, self.world.cut, "c0")
        return Fault(FaultKind.LOST_AFTER)


def test_what_may_have_been_written_is_read_before_it_is_written_again() -> None:
    """Also when the cluster returns after a long while, and the first answer is another kind's."""
    plan = LostOnce()
    methods: list[str] = []

    async def story(world: World) -> None:
        def look(cluster: str, request: Request) -> None:
            if cluster == "c0" and "flinkdeployments/" in request.path:
                methods.append(request.method)

        plan.world, world.before_write = world, look
        world.repository.commit({"apps/app0/app.yaml": application_file("app0", "2.0")}, "two")
        await world.until(lambda: plan.lost, 600, every_s=0.1)
        await world.sleep(150)
        methods.clear()
        world.mend("c0")
        await world.sleep(40)
        assert image(world, "c0", "app0") == "2.0"
        assert methods
        assert methods[0] == "GET"

    play_fleet(story, plan=plan)


def test_a_fleet_in_which_nothing_happened_for_long_starts_at_once() -> None:
    """A quiet cluster is asked once, and its answer starts the rollout that waited to hear from it."""

    async def story(world: World) -> None:
        patient = {f"clusters/c{number}.yaml": cluster_file(f"c{number}", "eu", "rest") for number in range(2)}
        longer = {path: text.replace("staleAfter: 1m", "staleAfter: 3m") for path, text in patient.items()}
        assert longer != patient
        world.repository.commit(longer, "patience")
        await world.sleep(1500)
        world.repository.commit({"apps/app0/app.yaml": application_file("app0", "2.0")}, "two")
        (before,) = world.ask(lambda tx: tx.rollouts(limit=1))
        await world.until(lambda: world.ask(lambda tx: tx.rollouts(limit=1)) != [before], 120, every_s=0.5)
        waited_s = await world.until(lambda: image(world, "c0", "app0") == "2.0", 120, every_s=0.5)
        assert waited_s <= 3.0

    play_fleet(story, settings=DaemonSettings(check_interval_s=10.0))


def test_a_write_limit_holds_up_the_lane_and_is_asked_once_a_token() -> None:
    """A hundred targets that wait for one token are not a hundred reads."""
    count: Counter[str] = Counter()

    async def story(world: World) -> None:
        world.before_write = lambda _cluster, request: count.update([request.method])
        world.repository.commit(
            {f"apps/app{number}/app.yaml": application_file(f"app{number}", "2.0") for number in range(20)}, "two"
        )
        await world.sleep(20)
        await world.until(world.settled, 3600)

    settings = DaemonSettings(writes_per_second_and_cluster=0.5)
    play_fleet(story, applications=20, settings=settings)
    assert count["PATCH"] >= 20 * 2
    assert count["GET"] < 12 * count["PATCH"]


def test_under_a_write_limit_targets_are_finished_in_the_order_they_were_begun() -> None:
    ended: list[str] = []

    async def story(world: World) -> None:
        files = {f"apps/app{number}/app.yaml": application_file(f"app{number}", "2.0", 3) for number in range(8)}
        world.repository.commit(files, "two")
        begun: list[str] = []
        while len(ended) < 8:
            await world.sleep(0.5)
            pending = world.ask(lambda tx: [each.target.application for each in tx.intents(pending=True)])
            begun += [name for name in dict.fromkeys(pending) if name not in begun]
            ended.extend(name for name in begun if name not in pending and name not in ended)
        assert ended == begun

    play_fleet(story, clusters=1, applications=8, settings=DaemonSettings(writes_per_second_and_cluster=1.0))


# ---- limiter -----------------------------------------------------------------------------------------------------


def test_a_bucket_saves_up_its_burst_and_says_when_the_next_token_is_there() -> None:
    limiter = Limiter(per_second=2.0, burst=3.0)
    assert [limiter.take(10.0) for _ in range(4)] == [None, None, None, 10.5]
    assert limiter.take(10.5) is None
    assert limiter.take(10.5) == 11.0
    assert [limiter.take(1000.0) for _ in range(4)][:3] == [None, None, None]


def test_time_that_goes_back_gives_nothing() -> None:
    limiter = Limiter(per_second=1.0, burst=1.0)
    assert limiter.take(100.0) is None
    assert limiter.take(50.0) is not None
    assert limiter.take(101.0) is None


def test_of_many_that_wait_each_has_a_moment_of_its_own() -> None:
    limiter = Limiter(per_second=10.0, burst=1.0)
    assert limiter.take(5.0) is None
    told = [limiter.take(5.0) for _ in range(100)]
    assert told == pytest.approx([5.1 + number / 10 for number in range(100)])
    assert [limiter.take(at_s) for at_s in told if at_s is not None] == [None] * 100
    assert limiter.take(100.0) is None  # what was promised long ago holds nobody up


def test_who_goes_on_with_something_else_is_promised_nothing() -> None:
    limiter = Limiter(per_second=10.0, burst=1.0)
    assert limiter.take(5.0) is None
    assert [limiter.take(5.0, promise=False) for _ in range(100)] == [pytest.approx(5.1)] * 100
    assert limiter.take(5.0) == pytest.approx(5.1)


def test_others_are_put_off_as_long_as_who_was_told_to_wait_and_not_as_the_longest_wait() -> None:
    retries, now = Retries(), Now(1e9, 100.0, 1)
    stuck, first, second = (Target(f"fleet/app{number}", "c0") for number in range(3))
    for _ in range(8):
        retries.put_off(stuck, Later(Reason("InternalError", "again and again")), now)
    later = Later(Reason("WriteLimit", "spent for now"), after_s=0.5)
    retries.put_off(first, later, now)
    retries.put_off_all(first, [stuck, second], later)
    assert [retries.ready(each, Now(1e9, 100.6, 1)) for each in (stuck, first, second)] == [False, True, True]


def test_a_missing_right_is_believed_when_it_was_heard_often_enough_in_a_row() -> None:
    retries, now, target = Retries(), Now(1e9, 100.0, 1), Target("fleet/app", "c0")

    def hears(code: str) -> bool:
        """Hear `code`: True if it is believed."""
        outcome = retries.believed(target, IntentResult("i", IntentState.FAILED, Reason(code, "no")))
        if isinstance(outcome, Later):
            retries.put_off(target, outcome, now)
        return not isinstance(outcome, Later)

    for _ in range(9):
        retries.put_off(target, Later(Reason("NoAnswer", "the API server is restarted")), now)
    for code in ("Forbidden", "ImpersonationForbidden"):
        assert [hears(code) for _ in range(5)] == [False] * 4 + [True]
    assert [hears("Forbidden") for _ in range(3)] == [False] * 3
    # What is told before anything is sent says nothing of rights; what else the server says ends the row.
    retries.believed(target, Later(Reason("WriteLimit", "spent for now")))
    assert [hears("Forbidden") for _ in range(2)] == [False, True]
    assert [hears("Forbidden") for _ in range(3)] == [False] * 3
    assert hears("Denied")
    assert [hears("Forbidden") for _ in range(5)] == [False] * 4 + [True]


def test_less_than_one_a_second_is_a_limit_too() -> None:
    limiter = Limiter(per_second=0.5, burst=0.5)
    assert [limiter.take(at_s) for at_s in (0.0, 0.0, 2.0)] == [None, 2.0, None]


def test_what_the_fleet_refuses_costs_the_cluster_nothing() -> None:
    limits = WriteLimits(Limiter(per_second=0.1, burst=1.0), Limiter(per_second=1.0, burst=1.0))
    assert limits.fleet.take(0.0) is None
    assert limits.take(0.0) == 1.0
    assert limits.take(1.0) is None


def test_both_limits_hold() -> None:
    fleet = Limiter(per_second=1.0, burst=2.0)
    first, second = (WriteLimits(Limiter(per_second=1.0, burst=1.0), fleet) for _ in range(2))
    assert first.take(0.0) is None
    assert first.take(0.0) == 1.0  # its own
    assert second.take(0.0) is None
    third = WriteLimits(Limiter(per_second=1.0, burst=1.0), fleet)
    assert third.take(0.0) == 1.0  # the fleet's
