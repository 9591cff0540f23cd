"""Writes to a peer that takes nothing for a while."""

from __future__ import annotations

import socket
import threading

import pytest

from infertool.net.stream import StalledError, Stream

# More than two sockets hold.
DATA = bytes(32 * 1024 * 1024)


def test_a_peer_that_takes_nothing_is_given_up_unless_there_is_a_reason_to_wait() -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        stream = Stream(ours)
        with pytest.raises(StalledError, match=r"took nothing for 0\.01 s"):
            stream.write(DATA, 0.01)
    ours, peer = socket.socketpair()
    taken: list[int] = []
    asked: list[None] = []

    def drain() -> None:
        while data := peer.recv(1 << 20):
            taken.append(len(data))

    thread = threading.Thread(target=drain)

    def goes_on() -> bool:
        asked.append(None)
        if len(asked) == 3:
            thread.start()
        return True

    with peer:
        with ours:
            Stream(ours).write(DATA, 0.01, goes_on=goes_on)
        thread.join()
    assert len(asked) >= 3
    assert sum(taken) == len(DATA)
