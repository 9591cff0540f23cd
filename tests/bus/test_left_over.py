"""What a model leaves running, and a stream that nobody reads: the process ends all the same."""

from __future__ import annotations

import fcntl
import json
import sys
import termios
import time

import pytest

from tests.bus.conftest import Bus
from tests.support.present import present
from tests.support.running import CREDENTIALS, Running

LONG = 180
LEAVES = """
import asyncio
import concurrent.futures
import os
import threading
import time


class Thread:
    def warm_up(self):
        threading.Thread(target=time.sleep, args=(3600,), name="refresh").start()
        if os.environ.get("FAILS"):
            raise ValueError("no weights")

    def predict(self, payload):
        return 1


class Pool(Thread):
    def warm_up(self):
        self.pool = concurrent.futures.ThreadPoolExecutor(1, "refresh")
        self.pool.submit(time.sleep, 3600)


class Async:
    async def warm_up(self):
        asyncio.get_running_loop().run_in_executor(None, time.sleep, 3600)

    async def predict(self, payload):
        return 1


class Closes:
    def predict(self, payload):
        return 1

    def close(self):
        threading.Event().wait()


class AsyncCloses:
    async def predict(self, payload):
        return 1

    async def close(self):
        await asyncio.sleep(3600)
"""
TEAM = ("--processes", "2")


def model(bus: Bus, name: str) -> str:
    file = bus.folder / "leaves.py"
    file.write_text(LEAVES)
    return f"{file}:{name}"


@pytest.mark.parametrize(("name", "team"), [("Thread", ()), ("Pool", ()), ("Async", ()), ("Thread", TEAM)])
def test_threads_of_the_model_do_not_hold_up_the_end(embedded_bus: Bus, name: str, team: tuple[str, ...]) -> None:
    bus = embedded_bus
    bus.send(3)
    consumer = bus.consume(*team, model=model(bus, name))
    assert bus.viewer.wait(3, LONG)
    consumer.wait_for("broker connected", 2 if team else 1)
    consumer.terminate()
    assert consumer.finish(LONG)["succeeded"] == 3
    assert consumer.log.read_text().count("warning the process waited for ") == (2 if team else 1)


@pytest.mark.parametrize(
    ("name", "options"),
    [("Closes", ("--max-messages", "3")), ("AsyncCloses", ("--max-messages", "3")), ("Closes", TEAM)],
)
def test_a_close_that_hangs_does_not_hold_up_the_end(embedded_bus: Bus, name: str, options: tuple[str, ...]) -> None:
    bus = embedded_bus
    bus.send(3)
    consumer = bus.consume(*options, model=model(bus, name))
    assert bus.viewer.wait(3, LONG)
    if options is TEAM:
        consumer.wait_for("broker connected", 2)
        consumer.terminate()
    assert consumer.finish(LONG)["succeeded"] == 3
    told = f"warning model leaves:{name} has not closed within 10 s; it is not waited for"
    assert consumer.log.read_text().count(told) == (2 if options is TEAM else 1)


def test_a_run_with_an_end_of_its_own_ends(embedded_bus: Bus) -> None:
    bus = embedded_bus
    bus.send(1)
    consumer = bus.consume("--max-messages", "1", model=model(bus, "Thread"))
    assert consumer.finish(LONG)["succeeded"] == 1
    assert "(refresh); it is ended" in consumer.log.read_text()


def test_a_run_that_fails_ends_with_its_exit_code(embedded_bus: Bus) -> None:
    consumer = embedded_bus.consume(model=model(embedded_bus, "Thread"), FAILS="1")
    assert consumer.process.wait(LONG) == 1
    assert "no weights" in consumer.log.read_text()


def test_a_model_server_ends(embedded_bus: Bus) -> None:
    bus = embedded_bus
    server = Running(
        bus.folder / "servers", "serve-model", model(bus, "Thread"), "--listen", "127.0.0.1:0", **CREDENTIALS
    )
    server.wait_for("v2: ")
    server.terminate()
    assert server.process.wait(LONG) == 0


def test_a_reader_of_stdout_that_does_not_read_does_not_hold_up_the_end(embedded_bus: Bus) -> None:
    bus = embedded_bus
    consumer = bus.consume("--publish", "stdout", INFERTOOL_CONSUME__STOP_DEADLINE_S="1")
    pipe = present(consumer.process.stdout).fileno()
    # One page: a document is longer, so that the first one fills it.
    page = fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
    raw = bus.raw()
    raw.send(bus.queue, (({"event_id": f"{n}"}, json.dumps({"text": "x" * 3 * page}).encode()) for n in range(100)))
    raw.close()
    deadline = time.monotonic() + LONG
    while filled(pipe) < page:
        assert time.monotonic() < deadline, filled(pipe)
        time.sleep(0.02)
    consumer.terminate()
    assert consumer.process.wait(LONG) == 0
    assert "or for a stream that is not read; it is ended" in consumer.log.read_text()
    assert bus.left() > 80


def filled(pipe: int) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
