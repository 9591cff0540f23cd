"""A queue that may not be subscribed to after a reconnect keeps no other from being consumed."""

from __future__ import annotations

import pytest

from infertool.errors import OccupiedError
from infertool.net.connection_state import ConnectionState
from tests.brokers.amqp.conftest import Declare, wait_until
from tests.brokers.conftest import Connect
from tests.support.brokers import Links, numbered, send_all, take
from tests.support.proxy import Proxy
from tests.support.rabbitmq import RabbitMQ

pytestmark = pytest.mark.rabbitmq

USER = "reader"


@pytest.mark.parametrize("how", ["missing", "not to be read"])
def test_a_queue_that_is_refused_after_a_reconnect_stops_no_other(
    rabbitmq: RabbitMQ,
    declare: Declare,
    connect: Connect,
    links: Links,
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    there, refused = declare(), declare()

    def refuse() -> None:
        if how == "missing":
            with rabbitmq.pika() as channel:
                channel.queue_delete(refused)
        else:
            rabbitmq.admin.add_user(USER, "admin", (".*", ".*", there))

    def allow() -> None:
        if how == "missing":
            with rabbitmq.pika() as channel:
                channel.queue_declare(refused, durable=True)
        else:
            rabbitmq.admin.add_user(USER, "admin")

    sender = connect(rabbitmq.amqp_url)
    with rabbitmq.admin.user(USER, "admin"), Proxy(rabbitmq.amqp_port) as proxy:
        broker = connect(f"amqp://{USER}:admin@127.0.0.1:{proxy.port}", links)
        subscriptions = {name: broker.subscribe(name, window=2) for name in (refused, there)}
        proxy.stall()
        refuse()
        proxy.cut()
        proxy.resume()
        links.wait_for(ConnectionState.CONNECTED, times=2)
        send_all(sender, numbered(there, 2))
        assert len(take(subscriptions[there], 2)) == 2
        allow()
        wait_until(lambda: "subscribed to again" in caplog.text)
        send_all(sender, numbered(refused, 1))
        held = take(subscriptions[refused], 1)
        subscriptions[refused].ack(held)
        assert len(links.of(ConnectionState.LOST)) == 1
    assert refused in caplog.text


def test_a_queue_that_another_has_alone_after_a_reconnect_is_told(
    rabbitmq: RabbitMQ, declare: Declare, connect: Connect, links: Links
) -> None:
    queue = declare()
    other = connect(rabbitmq.amqp_url)

    def takes() -> bool:
        try:
            other.subscribe(queue, window=1, exclusive=True)
        except OccupiedError:  # RabbitMQ has not yet heard of the cut
            return False
        return True

    with Proxy(rabbitmq.amqp_port) as proxy:
        connect(f"amqp://127.0.0.1:{proxy.port}", links).subscribe(queue, window=1, exclusive=True)
        proxy.stall()
        proxy.cut()
        wait_until(takes)
        proxy.resume()
        wait_until(lambda: any("to itself" in each.reason for each in links.of(ConnectionState.LOST)))
