"""RabbitMQ's own dead letters: where they came from and why, and marks that are not RabbitMQ's."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from infertool.brokers.amqp import deaths
from infertool.message import BrokerDeath
from tests.support.rawamqp import RawAmqp

AT = datetime(2026, 11, 27, 3, 6, 45, tzinfo=UTC)
REJECTED: dict[str, Any] = {
    "x-death": [{
        "count": 1, "reason": "rejected", "queue": "orders", "time": AT, "exchange": "", "routing-keys": ["orders"],
    }],
    "x-first-death-queue": "orders", "x-first-death-reason": "rejected", "x-first-death-exchange": "",
}  # fmt: skip
UNKNOWN = BrokerDeath("", "", complete=False)


def test_a_message_of_a_producer_has_no_death() -> None:
    assert deaths.of({"x-request": 1, "x-delivery-count": 3}) is None


def test_a_death_tells_its_queue_cause_and_time() -> None:
    death = deaths.of({"a": 1, **REJECTED})
    assert death == BrokerDeath("orders", "rejected by a consumer", complete=True, at_ms=int(AT.timestamp() * 1000))


def test_the_first_death_tells_the_origin_and_the_last_is_named() -> None:
    later = {"count": 2, "reason": "expired", "queue": "orders.retry", "time": AT, "exchange": "x", "routing-keys": []}
    death = deaths.of({**REJECTED, "x-death": [later, *REJECTED["x-death"]]})
    assert death is not None
    assert (death.origin, death.complete) == ("orders", True)
    assert death.cause == "rejected by a consumer; then expired in orders.retry"


def without(name: str) -> dict[str, object]:
    return {key: value for key, value in REJECTED.items() if key != name}


def changed(**fields: object) -> dict[str, object]:
    death, *earlier = REJECTED["x-death"]
    return {**REJECTED, "x-death": [{**death, **fields}, *earlier]}


@pytest.mark.parametrize(
    "headers",
    [
        *(without(name) for name in REJECTED),
        {**REJECTED, "x-first-death-queue": "payments"},
        {**REJECTED, "x-first-death-reason": "expired"},
        {**REJECTED, "x-first-death-exchange": 1},
        {**REJECTED, "x-death": "orders"},
        {**REJECTED, "x-death": []},
        {**REJECTED, "x-death": [None, 3, "orders", {}]},
        changed(count=0),
        changed(count="1"),
        changed(queue=b"orders"),
        changed(queue=""),
        {"x-last-death-queue": "orders"},
    ],
)
def test_partial_and_forged_marks_are_not_taken(headers: dict[str, object]) -> None:
    assert deaths.of(headers) == UNKNOWN


def test_a_death_without_a_time_is_one() -> None:
    death = deaths.of(changed(time="yesterday"))
    assert death is not None
    assert (death.origin, death.at_ms) == ("orders", None)


@pytest.mark.rabbitmq
@pytest.mark.parametrize("reason", ["rejected", "expired", "maxlen", "delivery_limit"])
def test_what_the_real_broker_writes(raw: RawAmqp, reason: str) -> None:
    dlq = raw.queue()
    to_dlq = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dlq}
    before = int(time.time()) * 1000
    match reason:
        case "rejected":
            source = raw.queue(to_dlq)
            raw.send(source, b"1")
            with raw.channel() as channel:
                method, _, _ = channel.basic_get(source)
                channel.basic_reject(method.delivery_tag, requeue=False)
        case "expired":
            source = raw.queue(to_dlq)
            raw.send(source, b"1", expiration="1")
        case "maxlen":
            source = raw.queue({**to_dlq, "x-max-length": 1})
            raw.send(source, b"1", b"2")
        case _:
            source = raw.queue({**to_dlq, "x-queue-type": "quorum", "x-delivery-limit": 0})
            raw.send(source, b"1")
            with raw.channel() as channel:
                channel.basic_get(source)
    [(_, properties, body)] = raw.take(dlq, 1)
    death = deaths.of(properties.headers)
    assert body == b"1"
    assert death is not None
    assert (death.origin, death.complete) == (source, True)
    assert death.cause == deaths._CAUSES[reason]
    assert death.at_ms is not None
    assert before <= death.at_ms <= time.time() * 1000
