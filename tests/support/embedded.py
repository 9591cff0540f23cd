"""The embedded STOMP broker in a process of its own, as `infertool dev` starts it."""

from __future__ import annotations

from typing import Self

from infertool.embedded import processes


class EmbeddedBroker:
    """Looks to a test like `tests.support.activemq.ActiveMQ`; its messages end with it."""

    def __init__(self) -> None:
        self._server: processes.ServerProcess | None = None
        self.stomp_port = 0

    @property
    def url(self) -> str:
        return f"stomp://127.0.0.1:{self.stomp_port}"

    def start(self) -> Self:
        self._server = processes.start(processes.BROKER, host="127.0.0.1", port=self.stomp_port)
        self.stomp_port = self._server.port
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None
