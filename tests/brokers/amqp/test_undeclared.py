"""A queue that is another program's to make is not declared, whatever the settings allow."""

from __future__ import annotations

import queue
import uuid

import pytest

from infertool.errors import UnroutableError
from infertool.message import Message, Outgoing
from tests.brokers.amqp.conftest import Open
from tests.support.rawamqp import TIMEOUT_S

pytestmark = pytest.mark.rabbitmq


def test_a_reply_arrives_in_an_exclusive_queue_where_queues_may_be_declared(open_broker: Open) -> None:
    caller, server = open_broker(), open_broker(declare=True)
    came: queue.SimpleQueue[list[Message]] = queue.SimpleQueue()
    replies = caller.open_replies(came.put)
    confirmed: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    assert replies.address
    server.send(Outgoing(replies.address, b"3"), confirmed.put, declare=False)
    assert confirmed.get(timeout=TIMEOUT_S) is None
    assert [message.body for message in came.get(timeout=TIMEOUT_S)] == [b"3"]


def test_a_reply_to_nobody_makes_no_queue(open_broker: Open) -> None:
    server = open_broker(declare=True)
    address = f"gone-{uuid.uuid4()}"
    confirmed: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    server.send(Outgoing(address, b"3"), confirmed.put, declare=False)
    assert isinstance(confirmed.get(timeout=TIMEOUT_S), UnroutableError)
    assert server.reply_exists(address, TIMEOUT_S) is False
