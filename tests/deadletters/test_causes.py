"""Short names for why a broker dead-lettered a message, and when."""

from __future__ import annotations

import pytest

from infertool.deadletters import letters
from infertool.message import BodyKind, BrokerDeath, Properties, TypedMessage


def read(cause: str, at_ms: int | None = None, sent_ms: int | None = None) -> letters.DeadLetter:
    message = TypedMessage(
        id="1", source="dlq", native={}, body=b"{}", kind=BodyKind.TEXT, redelivered=False, epoch=0, token="",
        known=Properties(timestamp_ms=sent_ms), broker_death=BrokerDeath("orders", cause, complete=True, at_ms=at_ms),
    )  # fmt: skip
    return letters.read(message)


@pytest.mark.parametrize(
    ("cause", "name"),
    [
        ("java.lang.Throwable: Message Expired. Expiration:1", "Expired"),
        ("java.lang.Throwable: Exceeded redelivery policy max redelivery limit:6", "RedeliveriesExceeded"),
        ("java.lang.Throwable: duplicate from store for queue://a", "Duplicate"),
        ("java.lang.IllegalStateException: odd", "IllegalStateException"),
        ("rejected by a consumer", "Rejected"),
        ("dropped by a full queue", "QueueFull"),
        ("redelivered more often than the queue allows", "RedeliveriesExceeded"),
        ("rejected by a consumer; then expired in orders.retry", "Rejected"),
        ("expired before a consumer took it; then rejected in orders.retry", "Expired"),
        ("", ""),
    ],
)
def test_the_name_of_a_cause(cause: str, name: str) -> None:
    assert (read(cause).error_type, read(cause).error) == (name, cause)


def test_a_letter_died_when_the_broker_says_else_when_it_was_sent() -> None:
    assert read("", at_ms=2000, sent_ms=1000).failed_at == 2.0
    assert read("", sent_ms=1000).failed_at == 1.0
    assert read("").failed_at is None
