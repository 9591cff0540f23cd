"""The engine on a broker in process: acceptance, order, every way to end, and what it keeps."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from infertool.brokers.memory.server import Server
from infertool.errors import SettingsError
from infertool.gateway import classes
from infertool.gateway import request_rows as rows
from infertool.gateway.engine import Engine
from infertool.gateway.model_queue import LEAST_AT_BROKER
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.request import Outcome, State, document
from infertool.gateway.result_cache import ResultCache
from infertool.gateway.store import Store
from infertool.message import Message, Outgoing
from infertool.settings.broker import BrokerSettings
from infertool.settings.tree import GatewaySettings
from tests.gateway.engines import (
    LONG,
    answer_as_asked,
    connected,
    engine_on,
    ids_of,
    infer,
    outcome_of,
    refusal,
    run,
    stored,
    until,
)
from tests.gateway.requests import a_request
from tests.support.responder import Responder, reply


def test_a_request_and_its_ends(server: Server, tmp_path: Path) -> None:
    async def test() -> None:
        told: list[tuple[str, State]] = []
        async with engine_on(server.url, tmp_path) as engine:
            engine.on_outcome = lambda progress: told.append((progress.request.id, progress.state))
            asked = a_request(
                body=b'{"x": 1}', traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01", class_name="interactive"
            )
            done = await infer(engine, asked)
            outcome = outcome_of(done)
            assert (done.state, outcome.body, outcome.processing_ms) == (State.SUCCEEDED, b'{"y": 1}', 2.5)
            assert outcome.headers == {"model_version": "7"}
            failed = await infer(engine, a_request(body=b'"fail"'))
            assert failed.state is State.FAILED
            assert json.loads(outcome_of(failed).body)["error"] == "bad"
            expired = await infer(engine, a_request(body=b'"expire"'))
            assert expired.state is State.EXPIRED
            [message, *_] = responder.wait_for(3)
            properties = message.properties
            assert (message.body, properties.priority, properties.message_id) == (asked.body, 8, asked.id)
            assert (message.headers["event_id"], message.headers["traceparent"]) == (asked.id, asked.traceparent)
            assert abs(float(message.headers["deadline"]) - asked.deadline_ms) < 30_000
            assert properties.expires_ms == float(message.headers["deadline"])
            # Asked for later: from the store.
            await until(lambda: not engine._holdings._held)
            later = await engine.progress(asked.id)
            assert (later.state, later.outcome) == (done.state, done.outcome)
            assert (await engine.wait(asked.id, 0)).outcome == done.outcome
            assert [each.state async for each in engine.follow(asked.id)] == [State.SUCCEEDED]
            assert (await engine.cancel(asked.id)).state is State.SUCCEEDED
            assert told == [
                (asked.id, State.SUCCEEDED),
                (failed.request.id, State.FAILED),
                (expired.request.id, State.EXPIRED),
            ]
            assert {name: count for name, count in engine.figures()["ended"].items() if count} == {
                "succeeded": 1, "failed": 1, "expired": 1,
            }  # fmt: skip
            assert [condition.ok for condition in engine.health()] == [True, True, True]
            assert engine.owner_of(asked.id) == "t"

    with Responder(server.url, "q", answer_as_asked) as responder:
        run(test)


def test_ids_that_are_not_there(server: Server, tmp_path: Path) -> None:
    async def test() -> None:
        async with engine_on(server.url, tmp_path, keep_s=3600.0) as engine:
            assert (await refusal(engine.progress(engine.new_id()))).reason is Reason.UNKNOWN_REQUEST
            assert (await refusal(engine.wait("nonsense", 1))).reason is Reason.UNKNOWN_REQUEST
            assert (await refusal(engine.cancel(f"00000000012345678-{engine.name}"))).reason is Reason.GONE
            assert (await refusal(engine.progress("00000000012345678-other"))).reason is Reason.UNKNOWN_REQUEST

    run(test)


def test_one_key_fifty_times_at_once_is_one_inference(server: Server, tmp_path: Path) -> None:
    async def test() -> None:
        async with engine_on(server.url, tmp_path) as engine:
            await connected(engine)
            requests = [a_request(idempotency_key="k", fingerprint=b"f") for _ in range(50)]
            accepted = await asyncio.gather(*map(engine.submit, requests))
            assert len({each.id for each in accepted}) == 1
            assert sorted(each.replayed for each in accepted) == [False, *[True] * 49]
            done = await engine.wait(accepted[0].id, LONG)
            assert done.state is State.SUCCEEDED
            other = a_request(idempotency_key="k", fingerprint=b"g")
            assert (await refusal(engine.submit(other))).reason is Reason.IDEMPOTENCY_KEY_REUSED
            # Known keys are answered also when nothing new is taken.
            engine.draining = True
            assert (await engine.submit(requests[30])).replayed
            assert (await refusal(engine.submit(other))).reason is Reason.IDEMPOTENCY_KEY_REUSED
            assert (await refusal(engine.submit(a_request()))).reason is Reason.DRAINING
            assert (await refusal(engine.submit(a_request(idempotency_key="l")))).reason is Reason.DRAINING
            assert (engine._holdings.unfinished, engine.figures()["held_bytes"]) == (0, 0)
            assert len(responder.seen) == 1

    with Responder(server.url, "q", answer_as_asked) as responder:
        run(test)


def test_the_broker_gets_few_and_a_later_urgent_request_overtakes(server: Server, tmp_path: Path) -> None:
    held: list[Message] = []
    go = threading.Event()

    def answer(message: Message) -> Sequence[Outgoing]:
        held.append(message)
        return answer_as_asked(message) if go.is_set() else []

    async def test() -> None:
        async with engine_on(server.url, tmp_path) as engine:
            await connected(engine)
            first = [await engine.submit(a_request(class_name="batch", client=str(number))) for number in range(60)]
            late = await engine.submit(a_request(class_name="interactive"))
            assert len(responder.wait_for(LEAST_AT_BROKER)) == LEAST_AT_BROKER
            waiting = [each for each in first if (await engine.progress(each.id)).state is State.QUEUED]
            assert len(waiting) == 60 - LEAST_AT_BROKER
            positions = [(await engine.progress(each.id)).position for each in waiting]
            assert positions == sorted(position for position in positions if position is not None)
            assert (await engine.progress(late.id)).position == 0
            figures = engine.figures()
            assert (figures["waiting"], figures["at_broker"]) == (
                {"interactive": 1, "standard": 0, "batch": 28}, {"q": LEAST_AT_BROKER},
            )  # fmt: skip
            # One of those with the broker is cancelled: its place is not given to another one, which a consumer has.
            await engine.cancel(first[0].id)
            assert engine.figures()["at_broker"] == {"q": LEAST_AT_BROKER}
            go.set()
            for message in held.copy():
                for outgoing in answer_as_asked(message):
                    responder.send(outgoing)
            ended = await asyncio.gather(*(engine.wait(each.id, LONG) for each in [*first, late]))
            assert [each.state for each in ended] == [State.CANCELLED, *[State.SUCCEEDED] * 60]
            assert engine.figures()["replies_dropped"]["ended"] == 1
            order = ids_of(responder.seen)
            assert order.index(late.id) == LEAST_AT_BROKER
            assert len(order) == 61

    with Responder(server.url, "q", answer) as responder:
        run(test)


def test_following(server: Server, tmp_path: Path) -> None:
    async def test() -> None:
        async with engine_on(server.url, tmp_path) as engine:
            await connected(engine)
            for _ in range(LEAST_AT_BROKER):
                await engine.submit(a_request())
            accepted = await engine.submit(a_request())
            seen: list[State] = []

            async def follow() -> None:
                async for progress in engine.follow(accepted.id):
                    seen.append(progress.state)  # noqa: PERF401  (it is looked at meanwhile)

            following = asyncio.create_task(follow())
            left = asyncio.create_task(follow())
            # Once at first, and each second in the queue.
            await until(lambda: seen.count(State.QUEUED) >= 4)
            left.cancel()
            await asyncio.wait([left])
            seen.clear()
            with Responder(server.url, "q", answer_as_asked):
                await following
            assert seen[-2:] == [State.STARTED, State.SUCCEEDED]
            assert set(seen[:-2]) <= {State.QUEUED}
            assert (await engine.wait(accepted.id, 0)).state is State.SUCCEEDED
            await until(lambda: not engine._holdings._held)

    run(test)


def test_waiting_callers_and_those_who_leave(server: Server, tmp_path: Path) -> None:
    async def test() -> None:
        told: list[str] = []
        async with engine_on(server.url, tmp_path) as engine:
            engine.on_outcome = lambda progress: told.append(progress.request.id)
            requests = [
                a_request(), a_request(idempotency_key="k"), a_request(webhook="https://a/b"), a_request(), a_request(),
            ]  # fmt: skip
            for request in requests:
                await engine.submit(request)
            waited = await engine.wait(requests[0].id, 0.01)
            assert waited.state in {State.QUEUED, State.STARTED}
            for request in requests:
                engine.hung_up(request.id)
            engine.hung_up("unknown")
            states = [(await engine.progress(request.id)).state for request in requests]
            assert [state is State.CANCELLED for state in states] == [True, False, False, True, True]
            # Who leaves before the request is in the store.
            early, keyed = a_request(), a_request(idempotency_key="m")
            tasks = [asyncio.create_task(engine.submit(each)) for each in (early, keyed)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            with Responder(server.url, "q", answer_as_asked) as responder:
                assert (await engine.wait(early.id, LONG)).state is State.CANCELLED
                for request in (requests[1], requests[2], keyed):
                    assert (await engine.wait(request.id, LONG)).state is State.SUCCEEDED
                assert early.id not in ids_of(responder.seen)
            assert not engine._accepting
            assert len(told) == len(set(told)) == 7

    run(test)
    states = stored(tmp_path)
    assert sorted(map(str, states.values())) == ["cancelled"] * 4 + ["succeeded"] * 3


def test_deadlines(server: Server, tmp_path: Path) -> None:
    """In the queue, with the broker, and on another machine's clock: each ends, once, and late replies are counted."""
    late: list[Message] = []

    def answer(message: Message) -> Sequence[Outgoing]:
        late.append(message)
        return []

    async def test() -> None:
        async with engine_on(server.url, tmp_path) as engine:
            await connected(engine)
            now_ms = time.time_ns() // 1_000_000
            # The clock that the request was read with does not matter, only the time that it allows.
            requests = [
                a_request(accepted_ms=now_ms - 10**9, deadline_ms=now_ms - 10**9 + 2000)
                for _ in range(LEAST_AT_BROKER + 5)
            ]
            await asyncio.gather(*map(engine.submit, requests))
            ended = await asyncio.gather(*(engine.wait(each.id, LONG) for each in requests))
            assert {each.state for each in ended} == {State.EXPIRED}
            assert json.loads(outcome_of(ended[0]).body)["status"] == "EXPIRED"
            await until(lambda: engine.figures()["at_broker"] == {"q": 0})
            for message in responder.wait_for(1):
                responder.send(answer_as_asked(message)[0])
            responder.send(reply(late[0], b"{}", correlation_id="nobodys"))
            await until(lambda: engine.figures()["replies_dropped"]["unknown"] == 1)
            assert engine.figures()["replies_dropped"]["late"] >= 1
            gone = a_request(deadline_ms=1, accepted_ms=1)
            assert (await refusal(engine.submit(gone))).reason is Reason.DEADLINE_TOO_EARLY

    with Responder(server.url, "q", answer) as responder:
        run(test)
    assert set(stored(tmp_path).values()) == {"expired"}


@pytest.mark.parametrize("limit", [{"max_waiting": 2}, {"max_waiting_bytes": 20}])
def test_no_more_is_held_than_allowed(server: Server, tmp_path: Path, limit: dict[str, Any]) -> None:
    async def test() -> None:
        async with engine_on(server.url, tmp_path, **limit) as engine:
            requests = [a_request(body=b'"12345678"') for _ in range(3)]
            results = await asyncio.gather(*map(engine.submit, requests), return_exceptions=True)
            assert [isinstance(each, Problem) for each in results] == [False, False, True]
            assert isinstance(results[2], Problem)
            assert results[2].reason is Reason.FULL
            await engine.cancel(requests[0].id)
            await until(lambda: len(engine._holdings._held) == 1)
            await engine.submit(requests[2])
            assert engine.figures()["held_bytes"] == 20

    run(test)


def test_draining(server: Server, tmp_path: Path) -> None:
    async def test() -> None:
        async with engine_on(server.url, tmp_path) as engine:
            assert await engine.drain(0)
            engine.draining = False
            accepted = await engine.submit(a_request())
            assert not await engine.drain(0.01)
            assert [condition.ok for condition in engine.health()][2] is False
            with Responder(server.url, "q", answer_as_asked):
                assert await engine.drain(LONG)
            assert (await engine.progress(accepted.id)).state is State.SUCCEEDED

    run(test)


def test_old_results_are_forgotten(server: Server, tmp_path: Path) -> None:
    async def test() -> None:
        async with engine_on(server.url, tmp_path, keep_s=1.0) as engine:
            with Responder(server.url, "q", answer_as_asked):
                done = await infer(engine, a_request(id=engine.new_id()))
            async with asyncio.timeout(LONG):
                while True:
                    try:
                        await engine.progress(done.request.id)
                    except Problem as problem:
                        if problem.reason is Reason.GONE:
                            break
                    await asyncio.sleep(0.05)

    run(test)


def test_equal_requests_are_answered_from_the_cache(server: Server, tmp_path: Path) -> None:
    """Also while nothing can be sent; and each has an id and a row of its own."""

    async def test() -> None:
        async with engine_on(server.url, tmp_path, cache="2:10m") as engine:
            with Responder(server.url, "q", answer_as_asked) as responder:
                assert (await infer(engine, a_request(body=b'"fail"'))).state is State.FAILED
                assert (await infer(engine, a_request(body=b'"fail"'))).state is State.FAILED
                first = await infer(engine, a_request(body=b"1"))
                assert len(responder.wait_for(3)) == 3
            server.stop()
            engine._scheduler._away_since = 0.0
            again = await infer(engine, a_request(body=b"1", idempotency_key="k", fingerprint=b"f", client="d"))
            outcome = outcome_of(again)
            assert (again.state, outcome.body) == (State.SUCCEEDED, outcome_of(first).body)
            assert (outcome.headers["cache"], outcome.processing_ms) == ("hit", None)
            assert (document(again)["cached"], "cached" in document(first)) == (True, False)
            await until(lambda: not engine._holdings._held)
            assert (await engine.progress(again.request.id)).outcome == again.outcome
            repeat = await engine.submit(a_request(body=b"1", idempotency_key="k", fingerprint=b"f", client="d"))
            assert (repeat.id, repeat.replayed) == (again.request.id, True)
            for other in ({"body": b"2"}, {"content_type": "application/msgpack"}, {"model": "m"}):
                assert (await refusal(engine.submit(a_request(**{"body": b"1", **other})))).reason is Reason.BROKER_AWAY
            assert engine.figures()["cache"] == {"hit": 2, "miss": 6}
            assert (engine._holdings.unfinished, engine._holdings.bytes) == (0, 0)

    run(test)


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    cache = ResultCache(2, 10.0, lambda: now)
    requests = [a_request(body=b"%d" % number) for number in range(4)]
    result = Outcome(state=State.SUCCEEDED, body=b"12345")
    for request in requests[:2]:
        cache.keep(request, result)
    assert cache.find(requests[0])
    cache.keep(requests[2], result)
    assert [cache.find(each) is not None for each in requests] == [True, False, True, False]
    monkeypatch.setattr("infertool.gateway.result_cache.MOST_BYTES", 9)
    cache.keep(requests[3], result)
    assert [cache.find(each) is not None for each in requests] == [False, False, False, True]
    cache.keep(requests[3], result)
    now = 10.0
    assert cache.find(requests[3]) is None
    assert cache._bytes == 0


@pytest.mark.parametrize(("url", "changes"), [("nonsense://h", {}), ("memory://h", {"name": "a/b"})])
def test_settings_that_cannot_be(tmp_path: Path, url: str, changes: dict[str, Any]) -> None:
    async def test() -> None:
        with pytest.raises(SettingsError):
            async with engine_on(url, tmp_path, **changes):
                pass
        # Nothing holds the folder; nor does an engine that was closed before it began.
        Store(tmp_path, rows.TABLES).close()
        settings = GatewaySettings()
        await Engine(settings, BrokerSettings(url="memory://h"), classes.parse(settings), tmp_path, {}).close()
        Store(tmp_path, rows.TABLES).close()

    run(test)
