"""The events of one request and admission: they are decided over together, before any of them is sent."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from infertool.brokers.memory.server import Server
from infertool.gateway.admission import UNKNOWN_RATE_LIMIT, Admission, Asking
from infertool.gateway.classes import Class
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.request import State
from tests.gateway.engines import engine_on, refusal, run, until
from tests.gateway.requests import a_request
from tests.gateway.test_in_process import Client, engine_of

QUICK = Class("quick", 1, 2.0, 4)


def decide(admission: Admission, **changes: Any) -> Problem | None:
    figures = {"ahead": 0, "in_broker": 0, "rate": 10.0, "deadline_in_s": 600.0, "now": 0.0} | changes
    return admission.decide(QUICK, **figures).problem


@pytest.mark.parametrize("rate", [None, 0.1, 10.0])
def test_with_nothing_ahead_a_batch_of_any_size_is_taken(rate: float | None) -> None:
    assert decide(Admission(), rate=rate, followers=1000) is None


def test_other_work_unfinished_without_a_rate_counts_and_its_own_does_not() -> None:
    assert decide(Admission(), rate=None, ahead=UNKNOWN_RATE_LIMIT - 1, followers=1000) is None
    assert decide(Admission(), rate=None, ahead=UNKNOWN_RATE_LIMIT, followers=1)


def test_what_would_fit_at_no_time_is_told_no_time() -> None:
    problem = decide(Admission(), in_broker=1, followers=30)
    assert problem
    assert (problem.reason, problem.retry_after_s) == (Reason.OVER_BUDGET, None)
    assert "fewer events" in problem.detail


def test_one_that_comes_back_at_its_time_is_taken_for_its_first_event() -> None:
    admission, asking = Admission(), Asking(client="c", key="k", is_unique=True)
    problem = decide(admission, ahead=10, followers=15, asking=asking)
    assert problem
    assert problem.retry_after_s
    now = float(problem.retry_after_s)
    assert decide(admission, ahead=15, followers=15, now=now, asking=Asking(client="other"))
    assert decide(admission, ahead=15, followers=15, now=now, asking=asking) is None


def test_a_gateway_takes_its_first_batch_as_a_whole(server: Server, tmp_path: Path) -> None:
    async def test() -> None:
        async with engine_on(server.url, tmp_path) as engine:
            requests = [a_request() for _ in range(2 * UNKNOWN_RATE_LIMIT)]
            await engine.admit(requests)
            for request in requests:
                assert (await engine.submit(request, is_admitted=True)).id == request.id
            assert (await refusal(engine.admit([a_request()]))).reason is Reason.OVER_BUDGET

    run(test)


def test_a_batch_needs_room_for_all_and_a_known_one_needs_none(server: Server, tmp_path: Path) -> None:
    async def test() -> None:
        async with engine_on(server.url, tmp_path, max_waiting=3) as engine:
            first, second, third = requests = [
                a_request(idempotency_key=f"k/{number}", fingerprint=b"f") for number in range(3)
            ]
            assert (await refusal(engine.admit([*requests, a_request()]))).reason is Reason.FULL
            assert not engine.unfinished()
            await engine.admit(requests)
            for request in (first, second):
                await engine.submit(request, is_admitted=True)
            again = [replace(each, id=engine.new_id()) for each in requests]
            await engine.admit(again)
            assert (await engine.submit(again[0], is_admitted=True)).id == first.id
            assert (await engine.submit(again[2], is_admitted=True)).id == again[2].id
            assert (await engine.progress(first.id)).state in {State.QUEUED, State.STARTED}
            await until(lambda: len(engine.unfinished()) == 3)
            assert third.id not in {each.id for each in engine.unfinished()}

    run(test)


def test_a_model_server_takes_a_batch_as_a_whole_or_not_at_all() -> None:
    async def work() -> None:
        client = Client()
        engine = engine_of(client)
        for count, reason in ((6, Reason.BODY_TOO_LARGE), (5, None), (1, Reason.FULL)):
            requests = [a_request() for _ in range(count)]
            if reason:
                assert (await refusal(engine.admit(requests))).reason is reason
                continue
            await engine.admit(requests)
            for request in requests:
                await engine.submit(request, is_admitted=True)
        assert (len(client.calls), engine.waiting) == (2, 3)
        await engine.close()

    asyncio.run(asyncio.wait_for(work(), 60))
