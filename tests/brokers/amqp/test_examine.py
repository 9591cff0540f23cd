"""Rights that are tried on a RabbitMQ that takes no messages: the alarm is told, and all else is found out."""

from __future__ import annotations

import pytest

from infertool.app.doctor.round_trip import round_trip
from infertool.brokers.examining import Examined
from infertool.errors import ReceiptTimeoutError
from tests.brokers.amqp.conftest import refuse_messages
from tests.brokers.conftest import Connect
from tests.support.brokers import TIMEOUT_S
from tests.support.rabbitmq import RabbitMQ

pytestmark = pytest.mark.rabbitmq
ALARM = "takes no messages now: low on memory"


def test_rights_during_an_alarm(own: RabbitMQ, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    with own.pika() as channel:
        channel.queue_declare("q", durable=True)
    refuse_messages(own, connect(own.amqp_url), caplog)
    broker = connect(own.amqp_url)
    assert isinstance(broker, Examined)
    for _ in range(2):
        access = broker.examine("q", TIMEOUT_S)
        assert (access.exists, access.is_empty, access.read.allowed, access.write.allowed) == (True, True, True, None)
        assert access.write.reason.endswith(ALARM)
    assert broker.measure("q", TIMEOUT_S)


def test_a_round_trip_during_an_alarm(own: RabbitMQ, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    refuse_messages(own, connect(own.amqp_url), caplog)
    caplog.clear()
    broker = connect(own.amqp_url, receipt_timeout_s=10)
    with pytest.raises(ReceiptTimeoutError, match="low on memory"):
        round_trip(broker, TIMEOUT_S)
