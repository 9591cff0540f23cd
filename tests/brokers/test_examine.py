"""Rights that are tried over STOMP on a broker that does not answer."""

from __future__ import annotations

import re

from infertool.brokers.examining import Examined
from tests.brokers.conftest import Connect
from tests.support.brokers import new_queue, numbered, send_all
from tests.support.embedded import EmbeddedBroker
from tests.support.frameproxy import FrameProxy


def without_receipt(frame: bytes) -> bytes:
    is_trial = frame.lstrip().startswith(b"SEND") and b"\ntransaction:" in frame
    return re.sub(rb"\nreceipt:[^\n]*", b"", frame) if is_trial else frame


def test_a_send_that_is_not_answered_is_told(embedded_broker: EmbeddedBroker, connect: Connect) -> None:
    queue = new_queue()
    send_all(connect(embedded_broker.url), numbered(queue, 1))
    with FrameProxy(embedded_broker.stomp_port, to_server=without_receipt) as proxy:
        broker = connect(proxy.url)
        assert isinstance(broker, Examined)
        access = broker.examine(queue, 2.0)
    assert (access.write.allowed, access.write.reason) == (None, "no answer in time")
    assert access.read.allowed is not False
