"""The window of a consumer whose batches adapt: pure, then on a broker in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from infertool.brokers.memory.server import Server
from infertool.consumer.batching.window import LOOKS, GrowingWindow
from infertool.consumer.router import Published
from infertool.consumer.tuning import LARGEST_WINDOW
from infertool.consumer.worker import Threads
from infertool.models.port import LoadedModel
from infertool.publishers.local import LocalPublisher, discard
from tests.consumer.harness import wait_until
from tests.consumer.service import QUEUE, Service, ask, new_server

MOST = 256


def grown(window: GrowingWindow, looks: int = LOOKS, **what: int | bool) -> int:
    """Look so many times, by default at what makes it grow; return its value."""
    for _ in range(looks):
        seen: dict[str, Any] = {"unsettled": window.value, "waiting": 0, "wanted": 100, "moves": True, **what}
        window.look(**seen)
    return window.value


def test_a_window_that_keeps_batches_small_grows_up_to_its_bound() -> None:
    window = GrowingWindow(200, most=1000, workers=2)
    assert (window.share, grown(window, LOOKS - 1)) == (66, 200)
    assert grown(window, 1) == 400
    assert grown(window, 10 * LOOKS) == 1000
    assert window.share == 333


def test_batches_have_powers_of_two_while_the_window_may_grow() -> None:
    window = GrowingWindow(200, most=1000, workers=2)
    assert window.room == 64
    assert (grown(window, 10 * LOOKS), window.room) == (1000, 333)
    assert GrowingWindow(300, most=300, workers=2).room == 100, "a window that is given"


@pytest.mark.parametrize(
    "what",
    [{"unsettled": 100}, {"waiting": 150}, {"moves": False}],
    ids=["the broker has no more", "a batch waits", "nothing is settled"],
)
def test_a_window_that_is_not_the_limit_stays(what: dict[str, int]) -> None:
    assert grown(GrowingWindow(200, most=1000, workers=2), 10 * LOOKS, **what) == 200


def test_one_look_is_not_enough() -> None:
    window = GrowingWindow(200, most=1000, workers=2)
    for _ in range(10):
        grown(window, LOOKS - 1)
        grown(window, 1, waiting=150)
    assert window.value == 200


def test_window_and_batches_grow_together_on_a_busy_queue(tmp_path: Path) -> None:
    release = threading.Event()

    def predict_batch(payloads: Sequence[Any]) -> list[Any]:
        time.sleep(0.01)
        return list(payloads)

    model = LoadedModel("m", "m", lambda payload: payload, predict_batch=predict_batch)
    with new_server() as server:
        service = Service(
            server,
            tmp_path,
            lambda payload: payload,
            pool=Threads(model, in_batches=None),
            max_batch_size=MOST,
            concurrency=0,
        )
        consumer = service.consumer
        begin = consumer._window
        sender = threading.Thread(target=fill, args=(server, release))
        sender.start()
        try:
            wait_until(lambda: consumer._window >= 4 * begin)
            wait_until(lambda: service.stats.snapshot().tuned["batch_size"] > begin // 3)
        finally:
            release.set()
            sender.join()
            service.end()


class Widened(LocalPublisher[Published]):
    """Keeps the windows that it is told of."""

    def __init__(self) -> None:
        super().__init__("null", discard)
        self.windows: list[int] = []

    def widen(self, window: int) -> None:
        self.windows.append(window)


def test_the_publisher_has_room_for_the_window_from_the_start(tmp_path: Path) -> None:
    publisher = Widened()
    with new_server() as server:
        service = Service(server, tmp_path, lambda payload: payload, publisher=publisher, window=700)
        service.end()
    assert publisher.windows == [700]


def fill(server: Server, release: threading.Event) -> None:
    """Keep a queue full."""
    while not release.is_set():
        depth = server.depth(QUEUE)
        if depth is None or (depth.size or 0) < LARGEST_WINDOW * MOST:
            for _ in range(100):
                ask(server, b"{}", reply_to=None)
        else:
            time.sleep(0.005)
