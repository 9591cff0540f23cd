"""What `covers` says of a subscription is what the broker does."""

from __future__ import annotations

import pytest

from infertool.brokers.port import Move
from infertool.brokers.stomp import conventions
from infertool.message import Outgoing
from tests.brokers.conftest import Connect
from tests.support.brokers import TIMEOUT_S, Server, new_queue, send_all, take

# After a name of each test's own, which stands for `@`.
NAMES = ["@", "@.a", "@.a.b", "@.a.b.c", "@.dlq", "@.dlq.scan", "@x.a", "@.A", "@..a", "@.", "@.a*"]
PATTERNS = ["@", "@.*", "@.>", "@.*.b", "@.*.>", "@.a.>", "@,@.dlq", "@.*.scan,@.a", "@..*", "@.dlq"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_subscription_gets_what_it_covers_and_no_more(server: Server, connect: Connect, pattern: str) -> None:
    own, broker = new_queue().removeprefix("/queue/"), connect(server.url)
    names = [f"/queue/{name.replace('@', own)}" for name in NAMES]
    subscribed = conventions.source(pattern.replace("@", own))
    covered = {name for name in names if conventions.covers(subscribed, name)}
    assert covered
    send_all(broker, [Outgoing(name, name.encode()) for name in names])
    subscription = broker.subscribe(subscribed, window=100)
    messages = take(subscription, len(covered))
    assert {message.body.decode() for message in messages} == covered
    subscription.move([Move(message, None) for message in messages], TIMEOUT_S)
    left = {name for name in names for _ in broker.browse(name, limit=10, timeout_s=TIMEOUT_S).messages}
    assert left == set(names) - covered
