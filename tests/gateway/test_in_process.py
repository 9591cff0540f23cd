"""The engine of a model server over a client whose calls the test ends: order, bounds, refusals, what is taken back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from infertool.codec import JSON
from infertool.errors import CallTimeoutError, ConnectionLostError, InfertoolError
from infertool.gateway.in_process import InProcessEngine
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.request import InferRequest, State
from infertool.message import BodyKind, Message, Outgoing
from infertool.rpc import Call
from tests.gateway.requests import a_request

LONG = 60.0


class Client:
    """Takes calls, in order, and leaves their ends to the test."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.refusal: Exception | None = None

    def start(self, request: Outgoing, *, timeout_s: float, codec: Any = JSON) -> Call:
        if self.refusal:
            raise self.refusal
        call = Call(
            str(len(self.calls)), request, timeout_s, retry=False, used=codec, forget=lambda _id: True,
            expire=lambda _id: None,
        )  # fmt: skip
        self.calls.append(call)
        return call

    def ids(self) -> list[str]:
        return [call.event_id for call in self.calls]

    def answer(self, number: int, body: bytes, **headers: str) -> None:
        self.calls[number].answer(Message("m", "q", headers, body, BodyKind.TEXT, False, 1, "t"))


def engine_of(client: Client, **options: Any) -> InProcessEngine:
    return InProcessEngine(client, **{"window": 2, "max_queue": 3, "queue_timeout_s": 30.0, **options})  # type: ignore[arg-type]


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, LONG))


async def submitted(engine: InProcessEngine, count: int) -> list[InferRequest]:
    requests = [a_request() for _ in range(count)]
    for request in requests:
        await engine.submit(request)
    return requests


def test_requests_wait_in_order_and_a_few_of_them_at_the_consumer() -> None:
    async def work() -> None:
        client, ended = Client(), list[str]()
        engine = engine_of(client, on_end=lambda request: ended.append(request.id))
        ids = [request.id for request in await submitted(engine, 4)]
        assert client.ids() == ids[:2]
        assert [(await engine.progress(each)).position for each in ids] == [None, None, 0, 1]
        client.answer(1, b"[1]", status="SUCCESS", processing_ms="2.5")
        told = await engine.wait(ids[1], LONG)
        assert told.outcome is not None
        assert (told.state, told.outcome.body, told.outcome.processing_ms) == (State.SUCCEEDED, b"[1]", 2.5)
        assert client.ids() == ids[:3]
        # It is forgotten once it is told, and was told to the limits once.
        with pytest.raises(Problem) as caught:
            await engine.progress(ids[1])
        assert (caught.value.reason, ended) == (Reason.UNKNOWN_REQUEST, [ids[1]])
        await engine.close()
        assert sorted(ended) == sorted(ids)

    run(work())


@pytest.mark.parametrize(
    ("status", "body", "state"),
    [
        ("FAILED", b'{"error":"no","error_type":"E","stage":"infer","retryable":false}', State.FAILED),
        ("EXPIRED", b'{"error":"late","stage":"expired"}', State.EXPIRED),
    ],
)
def test_failures(status: str, body: bytes, state: State) -> None:
    async def work() -> None:
        client = Client()
        engine = engine_of(client)
        (request,) = await submitted(engine, 1)
        client.answer(0, body, status=status)
        assert (await engine.wait(request.id, LONG)).state is state
        await engine.close()

    run(work())


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (CallTimeoutError(queue="q", timeout_s=1), State.EXPIRED),
        (ConnectionLostError("gone", address="a"), State.FAILED),
    ],
)
def test_a_call_without_a_reply(error: InfertoolError, state: State) -> None:
    async def work() -> None:
        client = Client()
        engine = engine_of(client)
        first, *_ = await submitted(engine, 1)
        client.calls[0].set_exception(error)
        assert (await engine.wait(first.id, LONG)).state is state
        client.refusal = error
        (second,) = await submitted(engine, 1)
        assert (await engine.wait(second.id, LONG)).state is State.FAILED
        await engine.close()

    run(work())


def test_more_than_the_queue_holds_is_refused_with_a_time_once_a_rate_is_known() -> None:
    async def work() -> None:
        client = Client()
        engine = engine_of(client)
        await submitted(engine, 5)
        with pytest.raises(Problem) as caught:
            await submitted(engine, 1)
        assert (caught.value.reason, caught.value.retry_after_s) == (Reason.FULL, None)
        client.answer(0, b"1")
        while engine.figures()["drain_rate"] is None:  # noqa: ASYNC110  (a second of time)
            await asyncio.sleep(0.05)
        await submitted(engine, 1)
        with pytest.raises(Problem) as caught:
            await submitted(engine, 1)
        assert caught.value.reason in {Reason.FULL, Reason.OVER_BUDGET}
        assert caught.value.retry_after_s
        await engine.close()

    run(work())


def test_what_would_wait_too_long_is_refused_and_what_has_waited_too_long_expires() -> None:
    async def work() -> None:
        client = Client()
        engine = engine_of(client, window=1, max_queue=100, queue_timeout_s=1.0)
        _, *waiting = await submitted(engine, 3)
        for each in waiting:
            assert (await engine.wait(each.id, LONG)).state is State.EXPIRED
        assert len(client.calls) == 1
        (late,) = [a_request(deadline_ms=time.time_ns() // 1_000_000 + 500)]
        await engine.submit(late)
        assert (await engine.wait(late.id, LONG)).state is State.EXPIRED
        assert (engine.waiting, len(client.calls)) == (0, 1)
        await engine.close()

    run(work())


@pytest.mark.parametrize("step_ms", [-3_600_000, 3_600_000])
def test_a_step_of_the_machines_time_changes_nothing(step_ms: int) -> None:
    """A request was accepted before the step, and comes to its turn and its deadline after it."""

    async def work() -> None:
        client = Client()
        engine = engine_of(client, window=1)
        now_ms = time.time_ns() // 1_000_000 + step_ms
        first = a_request(accepted_ms=now_ms, deadline_ms=now_ms + 60_000)
        second = a_request(accepted_ms=now_ms, deadline_ms=now_ms + 500)
        for each in (first, second):
            await engine.submit(each)
        assert client.ids() == [first.id]
        assert client.calls[0].timeout_s == pytest.approx(60, abs=30)
        assert (await engine.wait(second.id, LONG)).state is State.EXPIRED
        await engine.close()

    run(work())


def test_who_hangs_up_or_cancels_is_taken_back() -> None:
    async def work() -> None:
        client = Client()
        engine = engine_of(client, window=1)
        first, second, third, fourth = await submitted(engine, 4)
        engine.hung_up(second.id)
        assert (await engine.cancel(third.id)).state is State.CANCELLED
        engine.hung_up(second.id)
        engine.hung_up(first.id)
        # The consumer still works on it: another one would wait there, where nobody can take it back.
        assert (client.ids(), engine.unfinished) == ([first.id], 2)
        client.answer(0, b"1")
        while len(client.calls) < 2:  # noqa: ASYNC110  (the end of a call comes through the mailbox)
            await asyncio.sleep(0.001)
        assert client.ids() == [first.id, fourth.id]
        client.answer(1, b"1")
        assert (await engine.wait(fourth.id, LONG)).state is State.SUCCEEDED
        assert engine.unfinished == 0
        await engine.close()

    run(work())


def test_callers_who_hang_up_do_not_look_like_finished_work() -> None:
    async def work() -> None:
        client = Client()
        engine = engine_of(client, max_queue=100)
        for _ in range(50):
            (request,) = await submitted(engine, 1)
            engine.hung_up(request.id)
        assert len(client.calls) == 2
        client.answer(0, b"1")
        client.calls[1].set_exception(CallTimeoutError(queue="q", timeout_s=1))
        while engine.figures()["in_broker"]:  # noqa: ASYNC110  (the end of a call comes through the mailbox)
            await asyncio.sleep(0.001)
        assert engine._rate._completed == 1
        await engine.close()

    run(work())


def test_a_drain_waits_for_the_end_and_refuses_the_rest() -> None:
    async def work() -> None:
        client = Client()
        engine = engine_of(client)
        (request,) = await submitted(engine, 1)
        assert await engine.drain(0.01) is False
        with pytest.raises(Problem) as caught:
            await submitted(engine, 1)
        assert caught.value.reason is Reason.DRAINING
        draining = asyncio.create_task(engine.drain(LONG))
        client.answer(0, b"1")
        assert await draining is True
        assert (await engine.wait(request.id, 0)).state is State.SUCCEEDED
        await engine.close()

    run(work())
