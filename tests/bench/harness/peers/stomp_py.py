"""stomp.py: a listener that does nothing but ack."""

from __future__ import annotations

import threading

import stomp
from stomp.utils import Frame

from tests.bench.harness.peers import PREFETCH, TIMEOUT_S, Clock, arguments


class AckOnly(stomp.ConnectionListener):  # type: ignore[misc]  # stomp.py has no types
    def __init__(self, connection: stomp.Connection12, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self.done = threading.Event()

    def on_message(self, frame: Frame) -> None:
        self._clock.begin()
        self._connection.ack(frame.headers["ack"])
        if self._clock.settled():
            self.done.set()


def main() -> None:
    port, queue, count = arguments()
    clock = Clock(count)
    connection = stomp.Connection12([("127.0.0.1", port)])
    listener = AckOnly(connection, clock)
    connection.set_listener("", listener)
    connection.connect("admin", "admin", wait=True)
    connection.subscribe(queue, id="1", ack="client-individual", headers=PREFETCH)
    assert listener.done.wait(TIMEOUT_S)
    connection.disconnect()
    print(clock.rate)


if __name__ == "__main__":
    main()
