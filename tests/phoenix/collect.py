"""What a delivery told its owner, and waiting for it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.phoenix.delivery import Delivery, Push, PushResult
from infertool.settings.tree import PhoenixSettings


def push_of(number: int, event: str = "new_result") -> Push[Any]:
    return Push(event, (f"e{number}",), b'{"event_id":"e%d"}' % number, number)


def pushes(count: int, event: str = "new_result") -> list[Push[Any]]:
    return [push_of(number, event) for number in range(count)]


class Owner:
    """Keeps what the callbacks bring."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.results: list[PushResult[Any]] = []
        self.links: list[ConnectionEvent] = []
        self.flows: list[bool] = []
        self.warnings: list[str] = []

    def on_results(self, results: Sequence[PushResult[Any]]) -> None:
        self._note(self.results.extend, results)

    def on_connection(self, event: ConnectionEvent) -> None:
        self._note(self.links.append, event)

    def on_flow(self, paused: bool) -> None:
        self._note(self.flows.append, paused)

    def on_warning(self, text: str) -> None:
        self._note(self.warnings.append, text)

    def _note(self, add: Callable[[Any], None], what: object) -> None:
        with self.changed:
            add(what)
            self.changed.notify_all()

    def wait_for(self, condition: Callable[[], object], timeout_s: float = 90) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, timeout_s), "the owner waited in vain"

    def wait_for_warning(self, words: str) -> str:
        self.wait_for(lambda: any(words in text for text in self.warnings))
        return next(text for text in self.warnings if words in text)

    def wait_for_link(self, state: ConnectionState, epoch: int) -> ConnectionEvent:
        self.wait_for(lambda: self._find(state, epoch))
        event = self._find(state, epoch)
        assert event
        return event

    def _find(self, state: ConnectionState, epoch: int) -> ConnectionEvent | None:
        return next((event for event in self.links if event.state is state and event.epoch == epoch), None)

    def confirmed(self) -> list[int]:
        """Return the numbers of confirmed pushes, in the order of their results."""
        return [result.push.context for result in self.results if result.confirmed_by]

    def refused(self) -> list[tuple[Any, str | None]]:
        return [(result.push.context, result.rejection) for result in self.results if not result.confirmed_by]

    def confirmations(self) -> set[str]:
        return {str(result.confirmed_by) for result in self.results}


def wait_until(condition: Callable[[], object], timeout_s: float = 90) -> None:
    """Wait for what nobody announces."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@contextlib.contextmanager
def delivery(url: str, **settings: Any) -> Iterator[tuple[Delivery[Any], Owner]]:
    """Yield a started delivery; confirm mode reply unless told otherwise."""
    options: dict[str, Any] = {"confirm": "reply", "connect_timeout_s": 60.0} | settings
    owner = Owner()
    made = Delivery(
        PhoenixSettings(url=url, **options),
        on_results=owner.on_results,
        on_connection=owner.on_connection,
        on_flow=owner.on_flow,
        on_warning=owner.on_warning,
    )
    made.start()
    try:
        yield made, owner
    finally:
        made.close(2)
