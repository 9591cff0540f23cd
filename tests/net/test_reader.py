"""A thread that reads, and one that is to read on but cannot be started."""

from __future__ import annotations

import queue
import socket
import threading

import pytest

from infertool.net.reader import StreamReader
from infertool.net.stream import Stream
from tests.consumer.harness import LONG


class Host:
    """A connection that has nothing to do but to end."""

    def __init__(self) -> None:
        self.reason = self.last_error = ""

    def on_tick(self, _now: float) -> str:
        return ""

    def end(self, reason: str) -> None:
        self.reason = self.reason or reason

    def on_read_end(self) -> None: ...


def test_a_reader_whose_successor_cannot_be_started_reads_on(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: queue.Queue[bytes] = queue.Queue()
    release = threading.Event()

    def feed(data: bytes) -> None:
        with reader.delivering():
            entered.put(data)
            assert release.wait(LONG)

    reader = StreamReader(Host(), name="tests-reader", feed=feed, explain=str)
    start = threading.Thread.start

    def start_no_more(thread: threading.Thread) -> None:
        if thread.name == "tests-reader":
            raise RuntimeError("can't start new thread")
        start(thread)

    ours, peer = socket.socketpair()
    with ours:
        with peer:
            thread = reader.start(Stream(ours))
            peer.sendall(b"1")
            assert entered.get(timeout=LONG) == b"1"
            with monkeypatch.context() as patched:
                patched.setattr(threading.Thread, "start", start_no_more)
                with pytest.raises(RuntimeError, match="new thread"):
                    reader.hand_off()
            release.set()
            peer.sendall(b"2")
            assert entered.get(timeout=LONG) == b"2"
        thread.join(LONG)
        assert not thread.is_alive()
