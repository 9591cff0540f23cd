"""Requests that the broker does not take, such as large ones: it ends the connection, on which others are under way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from infertool.brokers.memory.server import Server
from infertool.gateway import answers
from infertool.gateway.request import State
from tests.gateway.engines import answer_as_asked, connected, engine_on, infer, run
from tests.gateway.requests import a_request
from tests.support.rabbitmq import MOST, SmallRabbitMQ
from tests.support.responder import Responder


@pytest.mark.long
@pytest.mark.rabbitmq
@pytest.mark.parametrize("protocol", ["amqp", "stomp"])
def test_only_the_large_ones_fail(tmp_path: Path, protocol: str) -> None:
    """Over AMQP the broker tells its limit, over STOMP not always why it ends the connection."""

    async def test() -> None:
        async with engine_on(url, tmp_path / "state") as engine:
            await connected(engine)
            with Responder(url, "q", answer_as_asked):
                bodies = [b'"%b"' % (b"x" * MOST) if number % 10 == 3 else b"1" for number in range(60)]
                asked = [a_request(body=body, queue="/queue/q" if protocol == "stomp" else "q") for body in bodies]
                ended = await asyncio.gather(*(infer(engine, each) for each in asked))
        for each in ended:
            is_large = len(each.request.body) > MOST
            assert each.state is (State.FAILED if is_large else State.SUCCEEDED), answers.members(each)
            if is_large:
                assert answers.members(each)["stage"] == "send"

    with SmallRabbitMQ.of_a_test(tmp_path, "classic", "q") as server:
        url = server.amqp_url if protocol == "amqp" else server.url
        run(test)


def test_a_message_that_ends_the_connection_fails_alone(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time it is sent. What is sent with it goes on."""
    faults = server.faults
    original = faults.refusal

    def refusal_of(queue: str) -> str:
        if queue == "bad":
            faults.cut("it cannot take that")
        return original(queue)

    async def test() -> None:
        async with engine_on(server.url, tmp_path) as engine:
            await connected(engine)
            with Responder(server.url, "q", answer_as_asked):
                asked = [a_request(queue="bad" if number in {3, 12} else "q") for number in range(20)]
                ended = await asyncio.gather(*(infer(engine, each) for each in asked))
            bad = [each for each in ended if each.request.queue == "bad"]
            assert {each.state for each in ended if each not in bad} == {State.SUCCEEDED}
            for each in bad:
                assert each.state is State.FAILED
                told = answers.members(each)
                assert (told["stage"], told["error_type"]) == ("send", "ConnectionLostError")

    monkeypatch.setattr(faults, "refusal", refusal_of)
    run(test)
