"""AMQ_SCHEDULED_DELAY, _PERIOD and _REPEAT: with the embedded broker and with ActiveMQ."""

from __future__ import annotations

import time

import pytest

from tests.embedded.broker.conftest import Connect
from tests.embedded.broker.raw import frame, frame_of, send, subscribe
from tests.embedded.broker.test_settling import bodies


def later(destination: str, body: str = "x", **headers: str | int) -> bytes:
    """Return a SEND with header names as they are: `send` would make `-` of each `_`."""
    named = {name: str(value) for name, value in headers.items()}
    return frame_of("SEND", {"destination": destination, "persistent": "true", **named}, body)


def test_a_message_that_is_delayed_waits_and_others_do_not(connect: Connect, queue: str) -> None:
    client = connect()
    client.done(subscribe(f"/queue/{queue}", "auto"))
    began = time.monotonic()
    client.write(
        later(f"/queue/{queue}", "late", AMQ_SCHEDULED_DELAY=3000, extra="kept"), send(f"/queue/{queue}", "now")
    )
    now, late = client.read_many(2)
    assert (now.body, late.body) == (b"now", b"late")
    assert time.monotonic() - began >= 2.9
    assert late["scheduledJobId"] == late["message-id"]
    assert late["extra"] == "kept"
    assert "AMQ_SCHEDULED_DELAY" not in late.headers


@pytest.mark.parametrize("delay", [{}, {"AMQ_SCHEDULED_DELAY": 300}])
def test_a_message_that_repeats(connect: Connect, queue: str, delay: dict[str, int]) -> None:
    """REPEAT counts those after the first; each has an id of its own."""
    client = connect()
    client.done(subscribe(f"/queue/{queue}", "auto"))
    client.write(later(f"/queue/{queue}", "tick", AMQ_SCHEDULED_PERIOD=200, AMQ_SCHEDULED_REPEAT=2, **delay))
    ticks = client.read_many(3)
    assert bodies(ticks) == ["tick"] * 3
    assert len({tick["message-id"] for tick in ticks}) == 3
    assert len({tick["scheduledJobId"] for tick in ticks}) == 1
    assert client.quiet()


def test_repeat_alone_is_a_header_like_others(connect: Connect, queue: str) -> None:
    client = connect()
    client.done(subscribe(f"/queue/{queue}", "auto"))
    client.write(later(f"/queue/{queue}", "once", AMQ_SCHEDULED_REPEAT=2))
    got = client.read()
    assert (got["AMQ_SCHEDULED_REPEAT"], "scheduledJobId" in got.headers) == ("2", False)
    assert client.quiet()


def test_a_delay_of_nothing_and_one_to_a_topic(connect: Connect, queue: str) -> None:
    client = connect()
    client.done(subscribe(f"/queue/{queue}", "auto"), subscribe(f"/topic/{queue}", "auto", id="t"))
    client.write(*(later(f"/{kind}/{queue}", kind, AMQ_SCHEDULED_DELAY=0) for kind in ("queue", "topic")))
    assert sorted(bodies(client.read_many(2))) == ["queue", "topic"]


def test_in_a_transaction_the_delay_begins_with_the_commit(connect: Connect, queue: str) -> None:
    client = connect()
    client.done(subscribe(f"/queue/{queue}", "auto"), frame("BEGIN", transaction="t"))
    client.done(later(f"/queue/{queue}", transaction="t", AMQ_SCHEDULED_DELAY=10))
    assert client.quiet()
    client.write(frame("COMMIT", transaction="t"))
    assert client.read().body == b"x"


@pytest.mark.parametrize("name", ["AMQ_SCHEDULED_DELAY", "AMQ_SCHEDULED_PERIOD"])
@pytest.mark.parametrize("value", ["abc", "-5", "1.5"])
def test_a_schedule_that_is_no_number_ends_the_connection(connect: Connect, queue: str, name: str, value: str) -> None:
    client = connect()
    client.write(later(f"/queue/{queue}", **{name: value}))
    assert client.closed()
