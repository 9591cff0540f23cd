"""What infertool is compared with: the shortest loops that do the same job with the given libraries."""

from __future__ import annotations

import threading
import time

import stomp

from tests.support.activemq import ActiveMQ


class AckOnly(stomp.ConnectionListener):
    """A listener that does nothing but ack."""

    def __init__(self, connection: stomp.Connection12, count: int) -> None:
        self._connection = connection
        self._left = count
        self.first = 0.0
        self.last = 0.0
        self.done = threading.Event()

    def on_message(self, frame) -> None:
        self.first = self.first or time.perf_counter()
        self._connection.ack(frame.headers["ack"])
        self._left -= 1
        if self._left == 0:
            self.last = time.perf_counter()
            self.done.set()


def bare_stomp_py(broker: ActiveMQ, queue: str, count: int) -> float:
    """Return messages a second of a stomp.py listener that only acks, from the first delivery to the last ack."""
    connection = stomp.Connection12([("127.0.0.1", broker.stomp_port)])
    listener = AckOnly(connection, count)
    connection.set_listener("", listener)
    connection.connect("admin", "admin", wait=True)
    connection.subscribe(queue, id="1", ack="client-individual", headers={"activemq.prefetchSize": "200"})
    assert listener.done.wait(120)
    connection.disconnect()
    return count / (listener.last - listener.first)
