"""Asking the broker now and then how much waits. Optional: a broker that does not answer changes nothing."""

from __future__ import annotations

import threading

from infertool import brokers
from infertool.brokers.port import Broker
from infertool.errors import InfertoolError
from infertool.settings import Settings
from infertool.watch.bus import Bus
from infertool.watch.state import Depths

# Between two questions, and after a broker that could not be reached or refused. Seconds.
_INTERVAL_S = 3.0
_AGAIN_S = 30.0
_ANSWER_S = 1.0
_GOODBYE_S = 0.5


class Depthfinder:
    """Measures the queue and the dead-letter queue, from a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopped = threading.Event()

    def start(self, bus: Bus) -> None:
        """Begin to ask."""
        threading.Thread(target=self._run, args=(bus,), name="watch-depths", daemon=True).start()

    def stop(self) -> None:
        """Ask no more. An answer that is awaited is not waited for."""
        self._stopped.set()

    def _run(self, bus: Bus) -> None:
        while not self._stopped.is_set():
            try:
                self._ask(bus)
            except InfertoolError:
                _tell(bus, Depths())
            self._stopped.wait(_AGAIN_S)

    def _ask(self, bus: Bus) -> None:
        broker = brokers.open(self._settings.broker, name="infertool-watch")
        try:
            broker.connect()
            while not self._stopped.is_set():
                found = [self._size(broker, queue) for queue in self._queues()]
                _tell(bus, Depths(*found))
                self._stopped.wait(_INTERVAL_S)
        finally:
            broker.close(_GOODBYE_S)

    def _queues(self) -> tuple[str, str]:
        return self._settings.broker.queue, self._settings.deadletter.queue

    def _size(self, broker: Broker, queue: str) -> int | None:
        depth = broker.measure(queue, _ANSWER_S)
        return depth.size if depth else None


def _tell(bus: Bus, depths: Depths) -> None:
    bus.inbox.put(lambda state, _now: setattr(state, "depths", depths))
