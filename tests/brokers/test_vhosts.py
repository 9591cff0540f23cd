"""Virtual hosts: RabbitMQ has them; what has none refuses one in words."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infertool.errors import RefusedError
from tests.brokers.conftest import Connect
from tests.support.brokers import new_queue, numbered, send_all, take
from tests.support.rabbitmq import RabbitMQ

pytestmark = pytest.mark.rabbitmq
NAME = "team a/prod"
PATH = "/team%20a%2Fprod"


@pytest.fixture
def vhost(rabbitmq: RabbitMQ) -> Iterator[None]:
    with rabbitmq.admin.virtual_host(NAME):
        yield


def test_queues_of_a_virtual_host_are_its_own(rabbitmq: RabbitMQ, vhost: None, connect: Connect) -> None:
    queue, inside, outside = new_queue(), connect(rabbitmq.url + PATH), connect(rabbitmq.url)
    assert inside.address == rabbitmq.url + PATH
    send_all(outside, numbered(queue, 1))
    send_all(inside, numbered(queue, 3)[1:])
    messages = take(inside.subscribe(queue, window=10), 2)
    assert [message.body for message in messages] == [b'{"n": 1}', b'{"n": 2}']
    assert take(outside.subscribe(queue, window=10), 1)[0].body == b'{"n": 0}'


def test_one_that_does_not_exist_is_named(rabbitmq: RabbitMQ, connect: Connect) -> None:
    with pytest.raises(RefusedError, match="nowhere") as caught:
        connect(f"{rabbitmq.url}/nowhere")
    assert "virtual host in broker.url" in caught.value.advice


@pytest.mark.parametrize("name", ["activemq6", "artemis", "embedded_broker"])
@pytest.mark.activemq6
@pytest.mark.artemis
def test_brokers_without_any_refuse_one(request: pytest.FixtureRequest, name: str, connect: Connect) -> None:
    url = request.getfixturevalue(name).url
    with pytest.raises(RefusedError, match="has no virtual hosts") as caught:
        connect(f"{url}/prod")
    assert caught.value.address == f"{url}/prod"
    assert caught.value.advice == "take /prod out of broker.url"
