"""A RabbitMQ with smaller frames than usual ends the connection over a larger one."""

from __future__ import annotations

from queue import SimpleQueue

import pytest

from infertool.errors import RefusedError
from infertool.message import BodyKind, Outgoing
from infertool.net.connection_state import ConnectionState
from tests.brokers.conftest import Connect
from tests.support.brokers import TIMEOUT_S, Links, send_all, take
from tests.support.rabbitmq import RabbitMQ

pytestmark = pytest.mark.rabbitmq

MOST = 8192


class NarrowRabbitMQ(RabbitMQ):
    """A node whose frames have 8 KiB at most."""

    def configure(self) -> None:
        super().configure()
        with (self.base / "conf" / "rabbitmq.conf").open("a") as file:
            file.write(f"frame_max = {MOST}\n")


def test_headers_that_fit_no_frame_are_refused_and_end_no_connection(
    tmp_path_factory: pytest.TempPathFactory, connect: Connect, links: Links
) -> None:
    with NarrowRabbitMQ.of_a_test(tmp_path_factory.mktemp("narrow"), "classic", "q") as narrow:
        broker = connect(narrow.amqp_url, links)
        body = b"x" * 5 * MOST
        send_all(broker, [Outgoing("q", body, BodyKind.BYTES, {"h": "x" * (MOST // 2)})])
        ends: SimpleQueue[Exception | None] = SimpleQueue()
        with pytest.raises(RefusedError, match=f"{MOST - 64} are possible"):
            broker.send(Outgoing("q", b"", headers={"h": "x" * MOST}), ends.put)
        [message] = take(broker.subscribe("q", window=1), 1)
        assert message.body == body
        assert links.of(ConnectionState.LOST) == []
        broker.close(TIMEOUT_S)
