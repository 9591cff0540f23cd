"""Bodies near the limit of the wire format: they go both ways, and the broker gets the time it needs for them."""

from __future__ import annotations

import time
from functools import partial

from infertool.brokers.port import Move
from infertool.brokers.stomp.receipts import Receipts
from infertool.errors import ConnectionLostError
from infertool.message import BodyKind, Outgoing
from tests.brokers.conftest import Connect
from tests.support.brokers import TIMEOUT_S, Server, new_queue, send_all, take


def test_an_answer_may_take_longer_the_more_bytes_it_is_for() -> None:
    receipts, answers = Receipts("stomp://b"), dict[str, Exception | None]()
    for name, size in (("small", 1000), ("large", 64 * 1024 * 1024)):
        receipts.expect(partial(answers.__setitem__, name), 1.0, size)
    now = time.monotonic()
    receipts.expire(now + 30)
    assert answers.keys() == {"small"}
    receipts.expire(now + 300)
    assert isinstance(answers["large"], ConnectionLostError)


def test_a_large_text_is_moved(server: Server, connect: Connect) -> None:
    queue, broker = new_queue(), connect(server.url)
    body = b'{"x":"' + b"x" * 20_000_000 + b'"}'
    send_all(broker, [Outgoing(queue, body)])
    subscription = broker.subscribe(queue, window=1)
    (message,) = take(subscription, 1)
    subscription.move([Move(message, Outgoing(f"{queue}.dlq", message.body))], TIMEOUT_S)
    (letter,) = take(broker.subscribe(f"{queue}.dlq", window=1), 1)
    assert (letter.body, letter.kind) == (body, BodyKind.TEXT)
