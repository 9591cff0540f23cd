"""The engine on a broker in process, with every part that can be away, and over a restart."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from infertool.brokers.memory.faults import Effect, Operation
from infertool.brokers.memory.queues import NoQueue
from infertool.brokers.memory.server import Server
from infertool.gateway import answers
from infertool.gateway.problem import Reason
from infertool.gateway.request import State
from infertool.gateway.store import FILE_NAME
from infertool.message import Message, Outgoing
from infertool.rpc import Client
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


def test_the_broker_is_away(server: Server, tmp_path: Path) -> None:
    """Requests are held while they can wait for as long as the outage has lasted; then they are sent."""

    async def test() -> None:
        async with engine_on(
            server.url, tmp_path, classes={"quick": {"budget": "20s"}, "slow": {}}, default_class="slow"
        ) as engine:
            held = [await engine.submit(a_request(class_name=name)) for name in ("quick", "slow")]
            assert [condition.ok for condition in engine.health()] == [False, True, True]
            engine._scheduler._away_since = time.monotonic() - 25
            problem = await refusal(engine.submit(a_request(class_name="quick")))
            assert (problem.reason, problem.retry_after_s) == (Reason.BROKER_AWAY, 26)
            # Operators are told where it is, callers are not.
            assert "memory://" in engine.health()[0].value
            assert problem.detail == "the gateway is not connected to it"
            hurried = a_request(class_name="slow", accepted_ms=0, deadline_ms=3000)
            assert (await refusal(engine.submit(hurried))).reason is Reason.BROKER_AWAY
            held.append(await engine.submit(a_request(class_name="slow")))
            assert (await engine.progress(held[0].id)).state is State.QUEUED
            server.start()
            with Responder(server.url, "q", answer_as_asked):
                for each in held:
                    assert (await engine.wait(each.id, LONG)).state is State.SUCCEEDED
            held.append(await engine.submit(a_request(class_name="quick")))

    server.stop()
    run(test)


@pytest.mark.parametrize("fault", ["cut", "stop", "cut_before", "cut_after", "silence"])
def test_the_connection_is_lost_with_requests_under_way(server: Server, tmp_path: Path, fault: str) -> None:
    """Each is sent again, and ends once."""

    def sent() -> int | None:
        depth = server.depth("q")
        return None if depth is None else depth.size

    async def test() -> None:
        async with engine_on(address.url, tmp_path) as engine:
            await connected(engine)
            if fault.startswith("cut_") or fault == "silence":
                address.faults.plan(Operation.SEND, Effect[fault.upper()], skip=3)
            accepted = [await engine.submit(a_request()) for _ in range(10)]
            if fault == "cut":
                await until(lambda: sent() == 10)
                address.faults.cut()
            elif fault == "stop":
                await until(lambda: sent() == 10)
                server.stop()
                server.start()
            with Responder(server.url, "q", answer_as_asked) as responder:
                ended = await asyncio.gather(*(engine.wait(each.id, LONG) for each in accepted))
                assert {each.state for each in ended} == {State.SUCCEEDED}
                assert set(ids_of(responder.seen)) == {each.id for each in accepted}
            if fault != "silence":
                assert engine.figures()["sent_again"] > 0

    address = server.new_address()
    run(test)
    assert list(stored(tmp_path).values()) == ["succeeded"] * 10


def test_a_queue_that_consumers_have_yet_to_make(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = True

    def accept(queue: str) -> None:
        if missing and queue == "q":
            raise NoQueue("there is no q")

    async def test() -> None:
        nonlocal missing
        async with engine_on(server.url, tmp_path) as engine:
            await connected(engine)
            accepted = [await engine.submit(a_request()) for _ in range(5)]
            other = a_request(queue="other")
            with Responder(server.url, "other", answer_as_asked):
                assert (await infer(engine, other)).state is State.SUCCEEDED
            await until(lambda: engine.figures()["sent_again"] > 0)
            engine._scheduler.queues["q"].missing_since = time.monotonic() - 100
            problem = await refusal(engine.submit(a_request()))
            assert (problem.reason, problem.detail) == (Reason.BROKER_AWAY, "the broker has no queue q")
            missing = False
            # The broker's confirmation is enough: no consumer has answered yet.
            await until(lambda: engine._scheduler.queues["q"].missing_since is None)
            await until(lambda: engine.figures()["at_broker"]["q"] == 5)
            with Responder(server.url, "q", answer_as_asked):
                for each in accepted:
                    assert (await engine.wait(each.id, LONG)).state is State.SUCCEEDED

    faults = server.faults
    original = faults.refusal

    def refused(queue: str) -> str:
        accept(queue)
        return original(queue)

    monkeypatch.setattr(faults, "refusal", refused)
    run(test)


def test_the_broker_refuses_a_message(server: Server, tmp_path: Path) -> None:
    async def test() -> None:
        async with engine_on(server.url, tmp_path) as engine:
            await connected(engine)
            done = await infer(engine, a_request())
            assert done.state is State.FAILED
            said = json.loads(outcome_of(done).body)
            assert (said["stage"], said["error_type"], said["event_id"]) == ("send", "RefusedError", done.request.id)
            assert said["error"].startswith("the broker refuses it: ")
            assert "memory://" not in said["error"]
            # There is no dead letter to replay.
            assert "replay" not in answers.members(done)
            # Nor has a consumer worked.
            assert engine._scheduler.queues["q"]._drain._completed == 0

    server.faults.refuse_queue("q")
    run(test)


def test_an_earlier_request_for_what_is_no_queue_of_this_broker(server: Server, tmp_path: Path) -> None:
    """It fails by itself: the gateway sends what comes with it and after it."""
    strange, before = a_request(queue="topic://a,b"), a_request()

    async def first() -> None:
        async with engine_on(server.url, tmp_path) as engine:
            for request in (before, strange):
                await engine.submit(request)

    async def second() -> None:
        async with engine_on(server.url, tmp_path) as engine:
            with Responder(server.url, "q", answer_as_asked):
                failed = await engine.wait(strange.id, LONG)
                assert failed.state is State.FAILED
                said = json.loads(outcome_of(failed).body)
                assert (said["stage"], said["error_type"]) == ("send", "UsageError")
                assert "topic://a,b" in said["error"]
                assert (await engine.wait(before.id, LONG)).state is State.SUCCEEDED
                assert (await infer(engine, a_request())).state is State.SUCCEEDED

    server.stop()
    run(first)
    server.start()
    run(second)


def test_an_earlier_request_goes_to_the_queue_that_its_model_has_now(server: Server, tmp_path: Path) -> None:
    moved, kept = a_request(queue="topic://a,b"), a_request(model="gone", queue="q.kept")

    async def first() -> None:
        async with engine_on(server.url, tmp_path) as engine:
            for request in (moved, kept):
                await engine.submit(request)

    async def second() -> None:
        async with engine_on(server.url, tmp_path, queues={"default": "q"}) as engine:
            for request, queue in ((moved, "q"), (kept, "q.kept")):
                with Responder(server.url, queue, answer_as_asked) as responder:
                    assert (await engine.wait(request.id, LONG)).state is State.SUCCEEDED
                    assert ids_of(responder.wait_for(1)) == [request.id]

    server.stop()
    run(first)
    server.start()
    run(second)


def test_a_connection_that_fails_in_an_unknown_way(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again, as after any failure."""
    connect, faults = Client.connect, [ValueError("a fault of a library")]

    def failing(client: Client) -> None:
        if faults:
            raise faults.pop()
        connect(client)

    async def test() -> None:
        async with engine_on(server.url, tmp_path) as engine:
            with Responder(server.url, "q", answer_as_asked):
                assert (await infer(engine, a_request())).state is State.SUCCEEDED

    monkeypatch.setattr(Client, "connect", failing)
    run(test)
    assert not faults


def test_a_broker_that_confirms_nothing_does_not_keep_callers(server: Server, tmp_path: Path) -> None:
    async def test() -> None:
        async with engine_on(server.url, tmp_path) as engine:
            await connected(engine)
            server.faults.stall()
            accepted = await engine.submit(a_request())
            assert (await engine.progress(accepted.id)).state is State.STARTED
            await engine.cancel(accepted.id)
            server.faults.resume()

    run(test)


def test_the_store_is_away(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is accepted; outcomes wait in memory, and are stored later."""
    caplog.set_level(logging.INFO, "infertool.gateway.saving")

    async def test() -> None:
        async with engine_on(server.url, tmp_path) as engine:
            await connected(engine)
            accepted = await engine.submit(a_request())
            other = sqlite3.connect(engine._store.path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            problem = await refusal(engine.submit(a_request()))
            assert problem.reason is Reason.STORE_AWAY
            assert engine.health()[1].ok is False
            with Responder(server.url, "q", answer_as_asked):
                assert (await engine.wait(accepted.id, LONG)).state is State.SUCCEEDED
            assert (await engine.progress(accepted.id)).state is State.SUCCEEDED
            await until(lambda: engine._saving._again)
            other.execute("ROLLBACK")
            other.close()
            await until(lambda: not engine._holdings._held)
            assert engine.health()[1].ok
            assert (await engine.progress(accepted.id)).state is State.SUCCEEDED
            assert (engine._holdings.unfinished, engine._holdings.bytes) == (0, 0)

    run(test)
    told = [record.getMessage() for record in caplog.records if record.name == "infertool.gateway.saving"]
    assert "1 outcomes cannot be stored" in told[0]
    assert told[-1:] == ["outcomes are stored again"]
    assert told.count("outcomes are stored again") == 1


def test_results_that_wait_for_the_store_take_room(server: Server, tmp_path: Path) -> None:
    """However large they are: what is held has a limit."""
    result = b'"%b"' % (b"x" * 998)

    async def test() -> None:
        async with engine_on(server.url, tmp_path, max_waiting_bytes=1500) as engine:
            await connected(engine)
            first, second = [await engine.submit(a_request(body=b"[1]")) for _ in range(2)]
            assert engine.figures()["held_bytes"] == 6
            other = sqlite3.connect(engine._store.path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with Responder(server.url, "q", lambda message: [reply(message, result)]):
                for accepted in (first, second):
                    assert (await engine.wait(accepted.id, LONG)).state is State.SUCCEEDED
            assert engine.figures()["held_bytes"] == 2006
            assert (await refusal(engine.submit(a_request()))).reason is Reason.FULL
            other.execute("ROLLBACK")
            other.close()
            await until(lambda: not engine._holdings._held)
            assert engine.figures()["held_bytes"] == 0
            await engine.submit(a_request())

    run(test)


def test_a_reply_with_texts_that_are_no_utf8(server: Server, tmp_path: Path) -> None:
    """Its outcome is stored, and so are those beside it."""

    def answer(message: Message) -> list[Outgoing]:
        made = reply(message, b"1", traceparent="\udcff", event_id="\ud800")
        properties = replace(made.properties, content_type="a\udce4", content_encoding="b\udcfc")
        return [Outgoing(made.destination, made.body, made.kind, made.headers, properties)]

    async def test() -> None:
        async with engine_on(server.url, tmp_path) as engine:
            with Responder(server.url, "q", answer):
                done = [await infer(engine, a_request()) for _ in range(2)]
            await until(lambda: not engine._holdings._held)
            for each in done:
                outcome = outcome_of(await engine.progress(each.request.id))
                assert (outcome.state, outcome.content_type) == (State.SUCCEEDED, "application/json")
                assert outcome.headers["traceparent"] == "\ufffd"

    run(test)


def test_a_store_that_hangs(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with engine_on(server.url, tmp_path) as engine:
            go = threading.Event()
            engine._store.write(lambda _connection: go.wait(LONG), lambda _result: None)
            monkeypatch.setattr("infertool.gateway.engine._STORE_S", 0.0)
            plain, keyed = a_request(), a_request(idempotency_key="k")
            for request in (plain, keyed):
                assert (await refusal(engine.submit(request))).reason is Reason.STORE_AWAY
            go.set()
            # They come into the store after all: who can ask for it again gets the answer.
            assert (await engine.wait(plain.id, LONG)).state is State.CANCELLED
            with Responder(server.url, "q", answer_as_asked):
                assert (await engine.wait(keyed.id, LONG)).state is State.SUCCEEDED

    run(test)


def test_a_restart_takes_up_what_has_not_ended(server: Server, tmp_path: Path) -> None:
    requests = [a_request(class_name=name) for name in ("standard", "batch", "interactive")]
    done, brief = a_request(webhook="https://a/b"), a_request()
    brief = a_request(deadline_ms=brief.accepted_ms + 500, idempotency_key="k")

    async def first() -> None:
        async with engine_on(server.url, tmp_path, name="") as engine:
            names.append(engine.name)
            with Responder(server.url, "q", answer_as_asked):
                assert (await infer(engine, done)).state is State.SUCCEEDED
                assert (await infer(engine, a_request())).state is State.SUCCEEDED
            server.stop()
            # First: while the broker is away a request that cannot wait for it is refused.
            for request in (brief, *requests):
                await engine.submit(request)

    def change(statement: str, *values: object) -> None:
        with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as database:
            database.execute(statement, values)

    async def second() -> None:
        told: list[str] = []
        classes: dict[str, object] = {"standard": {}, "interactive": {}}
        async with engine_on(
            server.url, tmp_path, tell=lambda progress: told.append(progress.request.id), classes=classes, name=""
        ) as engine:
            names.append(engine.name)
            assert done.id in told
            assert outcome_of(await engine.progress(done.id)).body == b'{"y": 1}'
            assert (await engine.wait(brief.id, LONG)).state is State.EXPIRED
            assert (await engine.submit(a_request(idempotency_key="k"))).id == brief.id
            server.start()
            with Responder(server.url, "q", answer_as_asked) as responder:
                for request in requests:
                    assert (await engine.wait(request.id, LONG)).state is State.SUCCEEDED
                assert sorted(ids_of(responder.seen)) == sorted(each.id for each in requests)
            assert await engine.drain(LONG)

    names: list[str] = []

    async def third() -> None:
        told: list[str] = []
        async with engine_on(server.url, tmp_path, tell=lambda progress: told.append(progress.request.id)):
            assert told == []

    run(first)
    time.sleep(0.51)
    # However long ago its end was: its webhook was never written.
    change("UPDATE requests SET finished_ms = finished_ms - 3600000 WHERE id = ?", done.id)
    run(second)
    change("INSERT INTO webhooks VALUES (?, '', NULL, 'delivered', 1, 0, 0, NULL, 200, '')", done.id)
    run(third)
    assert names[0] == names[1] != ""
    assert sorted(map(str, stored(tmp_path).values())) == ["expired"] + ["succeeded"] * 5
