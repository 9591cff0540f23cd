"""A channel server, and a client that broadcasts on it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from infertool.channels.event import ChannelEvent
from infertool.phoenix.socket import PhoenixSocket
from infertool.settings.tree import PhoenixSettings
from tests.phoenix.conftest import no_thread_left  # noqa: F401 - for every test here, too
from tests.support.channel import Channel
from tests.support.hub import HubProcess


class Collected:
    """Collects the events of a feed or a playback."""

    def __init__(self) -> None:
        self.batches: list[list[ChannelEvent]] = []
        self._changed = threading.Condition()

    def __call__(self, arrivals: Sequence[ChannelEvent]) -> None:
        with self._changed:
            self.batches.append(list(arrivals))
            self._changed.notify_all()

    @property
    def all(self) -> list[ChannelEvent]:
        return [arrival for batch in self.batches for arrival in batch]

    def wait(self, count: int, timeout_s: float = 90) -> list[ChannelEvent]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.all) >= count, timeout_s), self.all[-3:]
        return self.all


class Pusher:
    """Makes the channel server broadcast events, as a consumer does."""

    def __init__(self, url: str) -> None:
        self._socket = PhoenixSocket(PhoenixSettings(url=url))
        self._socket.connect()
        self._channel = Channel(self._socket, "service:inference", {}, on_message=lambda _: None)
        self._channel.join(90)

    def push(self, event: str, *payloads: Any) -> None:
        for future in [self._channel.push(event, payload) for payload in payloads]:
            assert future.result(90).status == "ok"

    def close(self) -> None:
        self._socket.close(2)


@pytest.fixture
def hub() -> Iterator[HubProcess]:
    with HubProcess() as running:
        yield running


@pytest.fixture
def pusher(hub: HubProcess) -> Iterator[Pusher]:
    made = Pusher(hub.url)
    yield made
    made.close()
