"""The broker itself stops, is killed, and comes back."""

from __future__ import annotations

import pytest

from infertool.errors import ConnectionLostError
from infertool.message import Outgoing
from infertool.net.connection_state import ConnectionState
from tests.support.brokers import TIMEOUT_S, new_queue, numbered, send_all, take

pytestmark = pytest.mark.activemq


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_the_adapter_comes_back_by_itself(activemq, connect, links, how):
    queue, broker = new_queue(), connect(activemq.url, links)
    send_all(broker, numbered(queue, 20))
    subscription = broker.subscribe(queue, window=20)
    before = take(subscription, 20)
    subscription.ack(before[:5])
    # A confirmed send behind the acks: the broker has read them.
    send_all(broker, numbered(f"{queue}.barrier", 1))
    try:
        getattr(activemq, how)()
        links.wait_for(ConnectionState.LOST, 2)
        assert broker.measure(queue, 1) is None
        with pytest.raises(ConnectionLostError):
            broker.send(Outgoing(queue, b"{}"), print)
    finally:
        activemq.start()
    links.wait_for(ConnectionState.CONNECTED, 2)
    again = take(subscription, 15)
    assert [message.body for message in again] == [message.body for message in before[5:]]
    assert broker.measure(queue, TIMEOUT_S).size == 15
