"""Bytes from many threads to one socket: none lost, none twice, all in order, and no thread blocks on the socket."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator

import pytest

from infertool.net.write_buffer import WriteBuffer

LONG = 120.0


class Sink:
    """A socket that accepts as many bytes as the test allows."""

    def __init__(self, takes: int | None = None) -> None:
        self.takes = takes
        self.got = b""
        self.threads: list[str] = []
        self.room = threading.Event()
        self.room.set()
        self.arrived = threading.Condition()

    def some(self, data: bytes) -> bytes:
        taken = len(data) if self.takes is None else min(self.takes, len(data))
        self._take(data[:taken])
        return data[taken:]

    def all(self, data: bytes) -> None:
        assert self.room.wait(LONG)
        self._take(data)

    def _take(self, data: bytes) -> None:
        with self.arrived:
            self.threads.append(threading.current_thread().name)
            self.got += data
            self.arrived.notify_all()

    def wait(self, size: int) -> bytes:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.got) >= size, LONG), self.got
            return self.got


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def write_buffer(sink: Sink) -> Iterator[WriteBuffer]:
    write_buffer = WriteBuffer(sink.some)
    writer = threading.Thread(target=write_buffer.run, args=[sink.all], name="writer")
    writer.start()
    yield write_buffer
    write_buffer.close()
    sink.room.set()
    writer.join(LONG)
    assert not writer.is_alive()


def test_put_writes_in_the_calling_thread_while_the_buffer_is_empty(write_buffer: WriteBuffer, sink: Sink) -> None:
    write_buffer.put(b"one")
    write_buffer.put(b"two")
    assert sink.got == b"onetwo"
    assert set(sink.threads) == {threading.current_thread().name}


def test_the_rest_of_a_partial_write_goes_first(write_buffer: WriteBuffer, sink: Sink) -> None:
    sink.takes = 1
    sink.room.clear()
    write_buffer.put(b"one")
    write_buffer.put(b"two")
    assert sink.got == b"o"
    assert not write_buffer.wait_for_room(0)
    sink.room.set()
    assert sink.wait(6) == b"onetwo"
    assert write_buffer.wait_for_room(LONG)


def test_data_that_gathers_during_a_write_goes_out_in_one_write(write_buffer: WriteBuffer, sink: Sink) -> None:
    sink.takes = 0
    sink.room.clear()
    write_buffer.put(b"first")
    assert write_buffer.wait_for_room(LONG)  # the writer has it
    for number in range(5):
        write_buffer.put(b"%d" % number)
    sink.room.set()
    assert sink.wait(10) == b"first01234"
    assert sink.threads.count("writer") == 2


def test_on_written_is_called_after_the_write(write_buffer: WriteBuffer, sink: Sink) -> None:
    written: list[bytes] = []
    told = threading.Event()

    def on_written() -> None:
        written.append(sink.got)
        told.set()

    sink.room.clear()
    write_buffer.put(b"asks", on_written)
    assert not written
    sink.room.set()
    assert told.wait(LONG)
    assert written == [b"asks"]


def test_a_heartbeat_only_when_nothing_else_is_written(write_buffer: WriteBuffer, sink: Sink) -> None:
    write_buffer.beat(b"\n", 0.05)
    assert sink.wait(2)[:2] == b"\n\n"
    assert set(sink.threads) == {"writer"}


def test_no_heartbeat_gets_into_another_write(sink: Sink) -> None:
    """The calling thread is in its write while the writer's heartbeat interval ends several times."""
    inside, go_on = threading.Event(), threading.Event()

    def slowly(data: bytes) -> bytes:
        sink.some(data[:1])
        inside.set()
        assert go_on.wait(LONG)
        return sink.some(data[1:])

    write_buffer = WriteBuffer(slowly)
    write_buffer.beat(b"\n", 0.01)
    writer = threading.Thread(target=write_buffer.run, args=[sink.all])
    putter = threading.Thread(target=write_buffer.put, args=[b"whole"])
    putter.start()
    assert inside.wait(LONG)
    writer.start()
    writer.join(0.1)
    go_on.set()
    putter.join(LONG)
    assert sink.wait(7).startswith(b"whole\n")
    write_buffer.close()
    writer.join(LONG)


def test_close_drops_new_data_and_writes_buffered_data(sink: Sink) -> None:
    write_buffer = WriteBuffer(lambda data: data)
    write_buffer.put(b"before")
    write_buffer.close()
    write_buffer.put(b"after")
    write_buffer.run(sink.all)
    assert sink.got == b"before"


def test_a_failed_writer_releases_waiting_threads() -> None:
    def refuses(_data: bytes) -> None:
        raise BrokenPipeError

    write_buffer = WriteBuffer(lambda data: data)
    write_buffer.put(b"x")
    with pytest.raises(BrokenPipeError):
        write_buffer.run(refuses)
    write_buffer.close()
    assert write_buffer.wait_for_room(LONG)


def test_frames_of_many_threads_arrive_whole_and_in_each_ones_order() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    def some(data: bytes) -> bytes:
        try:
            return data[ours.send(data) :]
        except BlockingIOError:
            return data

    def everything(data: bytes) -> None:
        while data := some(data):
            pass

    write_buffer = WriteBuffer(some)
    writer = threading.Thread(target=write_buffer.run, args=[everything])
    writer.start()

    def send(name: int) -> None:
        rng = random.Random(name)
        for number in range(500):
            write_buffer.put(b"%d:%d:%s\n" % (name, number, b"x" * rng.choice([0, 10, 3000])))

    threads = [threading.Thread(target=send, args=[name]) for name in range(4)]
    for thread in threads:
        thread.start()
    lines = theirs.makefile("rb")
    seen: dict[int, list[int]] = {}
    for _ in range(4 * 500):
        name, number, rest = lines.readline().split(b":")
        assert set(rest) <= set(b"x\n")
        seen.setdefault(int(name), []).append(int(number))
    assert seen == {name: list(range(500)) for name in range(4)}
    write_buffer.close()
    writer.join(LONG)
    for end in (lines, theirs, ours):
        end.close()


def test_last_words_are_written_behind_all_others(sink: Sink) -> None:
    buffer = WriteBuffer(sink.some)
    buffer.put(b"first")
    buffer.close(b" and last")
    buffer.close(b" and again")
    buffer.put(b" and more")
    assert sink.got == b"first and last"


@pytest.mark.parametrize("takes", [0, 3])
def test_last_words_do_not_follow_half_a_message(takes: int) -> None:
    sink = Sink(takes)
    buffer = WriteBuffer(sink.some)
    buffer.put(b"first")
    buffer.close(b" and last")
    assert sink.got == b"first"[:takes]
