"""The observer against a small API server: what it knows, and that faults change nothing in the end."""

from __future__ import annotations

import asyncio
import json
from random import Random
from typing import Any

import pytest

from reconciler.core.model import ObjectKey
from reconciler.shell.follow import STALE_LISTS_MAX
from reconciler.shell.kube_errors import KubeError
from reconciler.shell.live import NOT_SEEN, GroupKind, is_older
from reconciler.shell.transport import Response
from reconciler.sim.loop import run
from tests.sim.observe_harness import ALL, FLINK, observing, simulated
from tests.sim.observe_world import Faults, SmallApi, failure

# ---- what is known -----------------------------------------------------------------------------------------------


@simulated
async def test_absent_is_known_only_after_a_whole_list() -> None:
    api = SmallApi()
    api.put("a", {"k": 1})
    async with observing(api) as world:
        assert world.spec("a") is NOT_SEEN
        assert world.observer.observed_at(FLINK.group_kind) is None
        await asyncio.sleep(1)
        assert world.spec("a") == {"k": 1}
        assert world.spec("nobody") is None
        assert world.spec("c", "ConfigMap") is NOT_SEEN
        assert world.observer.observed_at(FLINK.group_kind) is not None
        assert world.changed == [api.key("a")]


@pytest.mark.parametrize(
    "answer",
    [
        failure(500, "InternalError", "no"),
        failure(403, "Forbidden", "no"),
        failure(401, "Unauthorized", "no"),
    ],
    ids=["500", "403", "401"],
)
def test_a_failed_list_is_never_an_empty_fleet(answer: Any) -> None:
    async def scenario() -> None:
        api = SmallApi()
        api.put("a", {"k": 1})
        api.refuse["LIST flinkdeployments"] = answer
        async with observing(api) as world:
            await asyncio.sleep(100)
            assert world.spec("a") is NOT_SEEN
            assert world.observer.observed_at(FLINK.group_kind) is None
            problem = world.observer.problem(FLINK.group_kind)
            assert problem is not None
            # A refusal is an answer; a failure, or that nobody knows us, is none: the cluster counts as out of reach.
            told = json.loads(answer.body)["code"] == 403
            assert (world.observer.heard_at is not None) == told
            del api.refuse["LIST flinkdeployments"]
            await asyncio.sleep(40)
            assert world.spec("a") == {"k": 1}
            assert world.observer.problem(FLINK.group_kind) is None

    run(scenario())


@simulated
async def test_a_list_cut_between_pages_is_no_list() -> None:
    api = SmallApi()
    for number in range(600):
        api.put(f"a{number:03}", {"k": number})
    async with observing(api) as world:
        # The second page finds the snapshot gone, because something is written between the pages all the time.
        for number in range(20):
            await asyncio.sleep(0.015)
            api.put("busy", {"k": number})
        assert world.spec("nobody") is NOT_SEEN
        await asyncio.sleep(60)
        assert world.spec("nobody") is None
        world.assert_true_to_the_cluster()


@simulated
async def test_events_arrive_within_a_moment_and_only_once() -> None:
    api = SmallApi()
    async with observing(api) as world:
        await asyncio.sleep(1)
        api.put("a", {"k": 1})
        api.put("a", {"k": 2})
        await asyncio.sleep(0.1)
        assert world.spec("a") == {"k": 2}
        api.drop("a")
        await asyncio.sleep(0.1)
        assert world.spec("a") is None
        assert world.changed == [api.key("a")] * 3
        assert api.count("LIST") == 1


@simulated
async def test_a_removed_label_is_not_a_deletion() -> None:
    api = SmallApi()
    api.put("a", {"k": 1})
    async with observing(api) as world:
        await asyncio.sleep(1)
        api.put("a", {"k": 2}, labelled=False)
        await asyncio.sleep(0.1)
        assert world.spec("a") == {"k": 2}
        asked = api.count("GET")
        await asyncio.sleep(250)
        assert world.spec("a") == {"k": 2}
        assert api.count("GET") - asked <= 1, "an object without our label is not read at every check"
        api.drop("a")
        await asyncio.sleep(600)
        assert world.spec("a") is None


@simulated
async def test_a_deletion_that_cannot_be_confirmed_is_tried_again() -> None:
    api = SmallApi()
    api.put("a", {"k": 1})
    async with observing(api, check_interval_s=1000) as world:
        await asyncio.sleep(1)
        api.scripted.append(("GET flinkdeployments", failure(500, "InternalError", "no")))
        api.drop("a")
        await asyncio.sleep(0.1)
        assert world.spec("a") == {"k": 1}
        await asyncio.sleep(5)
        assert world.spec("a") is None


@pytest.mark.parametrize("said_as", ["status", "event"])
def test_a_version_too_old_lists_again_whichever_way_it_is_said(said_as: str) -> None:
    async def scenario() -> None:
        gone = failure(410, "Expired", "too old resource version")
        line = b'{"type":"ERROR","object":' + gone.body + b"}"
        api = SmallApi()
        api.put("b", {"k": 1})
        async with observing(api, check_interval_s=1000) as world:
            await asyncio.sleep(1)
            api.scripted.append(("WATCH flinkdeployments", gone if said_as == "status" else Response(200, {}, line)))
            api.cut_watches()
            api.put("a", {"k": 1})
            api.drop("b")
            api.compact()
            await asyncio.sleep(10)
            assert (world.spec("a"), world.spec("b")) == ({"k": 1}, None)
            assert api.count("LIST") == 2
            await asyncio.sleep(50)
            assert api.count("LIST") == 2

    run(scenario())


@simulated
async def test_a_watch_goes_on_where_the_last_one_ended() -> None:
    api = SmallApi()
    async with observing(api, check_interval_s=1000):
        await asyncio.sleep(1)
        for number in range(3):
            api.put("a", {"k": number})
            await asyncio.sleep(0.1)
            api.cut_watches()
            await asyncio.sleep(5)
        assert api.watched_from == [100, 101, 102, 103]
        assert api.count("LIST") == 1
        await asyncio.sleep(61)
        api.put("c", {"k": 1}, kind="ConfigMap")
        await asyncio.sleep(61)
        api.cut_watches()
        await asyncio.sleep(5)
        assert api.watched_from[-1] == api.revision, "a bookmark moves it on, too"


@simulated
async def test_what_a_watch_lost_is_found_by_the_next_check() -> None:
    api = SmallApi()
    api.put("a", {"k": 1})
    api.put("b", {"k": 1})
    async with observing(api) as world:
        await asyncio.sleep(1)
        api.mute_watches = True
        api.put("a", {"k": 2})
        api.put("c", {"k": 1})
        api.drop("b")
        await asyncio.sleep(1)
        assert world.spec("a") == {"k": 1}
        await asyncio.sleep(10)
        world.assert_true_to_the_cluster()
        assert (world.spec("a"), world.spec("b"), world.spec("c")) == ({"k": 2}, None, {"k": 1})
        assert api.count("LIST") == 1, "changed objects are read, the kind is not listed again"


@simulated
async def test_many_changes_are_one_list() -> None:
    api = SmallApi()
    async with observing(api) as world:
        await asyncio.sleep(1)
        api.mute_watches = True
        for number in range(90):
            api.put(f"a{number}", {"k": number})
        await asyncio.sleep(15)
        world.assert_true_to_the_cluster()
        assert (api.count("GET"), api.count("LIST")) == (0, 2)


# ---- late and stale news -----------------------------------------------------------------------------------------


@simulated
async def test_stale_news_never_replaces_newer() -> None:
    api = SmallApi()
    first = api.put("a", {"k": 1})
    async with observing(api, check_interval_s=10_000) as world:
        await asyncio.sleep(1)
        api.mute_watches = True
        second = api.put("a", {"k": 2})
        world.observer.observed(second)
        world.observer.observed(first)
        assert world.spec("a") == {"k": 2}
        api.drop("a")
        world.observer.gone(api.key("a"))
        world.observer.observed(first)
        assert world.spec("a") is None, "a late answer does not revive a deleted object"
        again = api.put("a", {"k": 3})
        world.observer.observed(again)
        assert world.spec("a") == {"k": 3}


@simulated
async def test_an_absence_read_before_our_own_write_does_not_undo_it() -> None:
    api = SmallApi()
    async with observing(api, check_interval_s=10_000) as world:
        await asyncio.sleep(1)
        api.mute_watches = True
        api.scripted.append(("GET flinkdeployments", failure(404, "NotFound", "no", name="a", kind="flinkdeployments")))
        reading = asyncio.ensure_future(world.observer.read(FLINK.api_version, api.key("a")))
        await asyncio.sleep(0.005)
        world.observer.observed(api.put("a", {"k": 1}))
        found = await reading
        assert found is not None
        assert found["spec"] == {"k": 1}


@simulated
async def test_a_stale_list_proves_nothing_and_a_restored_server_is_read_anew() -> None:
    api = SmallApi()
    api.put("a", {"k": 1})
    async with observing(api) as world:
        await asyncio.sleep(1)
        api.put("b", {"k": 1})
        await asyncio.sleep(0.1)
        # The server's data is put back to an older state: a is older, b never existed.
        api.revision = 50
        api.objects.clear()
        api.log.clear()
        api.put("a", {"k": 0})
        api.mute_watches = True
        await asyncio.sleep(11)
        assert world.spec("b") == {"k": 1}
        problem = world.observer.problem(FLINK.group_kind)
        assert problem is not None
        assert problem.code == "StaleList"
        await asyncio.sleep(STALE_LISTS_MAX * 30)
        assert (world.spec("a"), world.spec("b")) == ({"k": 0}, None)


@simulated
async def test_reading_an_unreachable_cluster_raises_and_changes_nothing() -> None:
    api = SmallApi()
    api.put("a", {"k": 1})
    async with observing(api) as world:
        await asyncio.sleep(1)
        api.reachable = False
        with pytest.raises(KubeError) as caught:
            await world.observer.read(FLINK.api_version, api.key("a"))
        assert caught.value.reason.code == "Unreachable"
        assert world.spec("a") == {"k": 1}


@simulated
async def test_idle_means_not_busy() -> None:
    api = SmallApi()
    async with observing(api) as world:
        await asyncio.sleep(0.001)
        assert world.observer.busy
        await asyncio.sleep(1)
        assert not world.observer.busy


# ---- faults of all kinds -----------------------------------------------------------------------------------------


async def chaos(seed: int) -> tuple[list[str], int]:
    """Five minutes of writes under faults, then quiet; the trace of requests, and how often the cluster was heard."""
    random = Random(seed)
    api = SmallApi(Faults(Random(seed + 1), rate=0.2))
    async with observing(api, ALL, resync_interval_s=60) as world:
        for step in range(300):
            kind = random.choice(["FlinkDeployment", "Deployment", "ConfigMap", "Service"])
            name = random.choice("abcdef")
            key = api.key(name, kind)
            action = random.random()
            if key in api.objects and action < 0.3:
                api.drop(name, kind=kind)
            elif action < 0.9:
                api.put(name, {"k": step}, kind=kind, labelled=random.random() < 0.9)
            elif action < 0.93:
                api.cut_watches()
            elif action < 0.95:
                api.compact()
                api.cut_watches()
            elif action < 0.97:
                api.reachable = not api.reachable
            await asyncio.sleep(random.random() * 2)
        api.faults.rate, api.reachable = 0.0, True
        await asyncio.sleep(700)
        world.assert_true_to_the_cluster()
        for followed in ALL:
            assert world.observer.problem(followed.group_kind) is None
        assert api.open_max <= 12
        return api.requests, world.heard


@pytest.mark.parametrize("seed", range(30))
def test_whatever_goes_wrong_the_cache_is_true_in_the_end(seed: int) -> None:
    run(chaos(seed))


def test_the_same_seed_asks_the_same_questions() -> None:
    assert run(chaos(4711)) == run(chaos(4711))


def test_versions_that_are_no_numbers_go_by_arrival() -> None:
    assert is_older("9", "10")
    assert not is_older("10", "9")
    assert not is_older("10", "10")
    assert not is_older("abc", "10")
    assert not is_older("9", "")
    assert GroupKind.of(ObjectKey("apps", "Deployment", "p", "a")) == GroupKind("apps", "Deployment")
