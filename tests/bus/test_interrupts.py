"""Ctrl-C, and readers of stdout that go away."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
import websocket

from tests.bus.conftest import Bus
from tests.support.hub import HubProcess
from tests.support.present import present
from tests.support.running import CREDENTIALS, Running, environment

LONG = 120


def broadcast(hub: HubProcess, count: int) -> None:
    """Have results broadcast, as a consumer would."""
    connection = websocket.create_connection(f"{hub.url}?vsn=2.0.0", suppress_origin=True)
    connection.send(json.dumps(["1", "1", "service:inference", "phx_join", {}]))
    for number in range(count):
        payload = {"event_id": f"e{number}", "status": "SUCCESS"}
        connection.send(json.dumps(["1", f"{number}", "service:inference", "new_result", payload]))
        connection.recv()
    connection.close()


@pytest.fixture
def tail(session_hub: HubProcess, tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path, "tail", "public:results", "public:alerts", "--phoenix", session_hub.url)
    running.wait_for("following")
    yield running
    running.kill()


def test_ctrl_c_ends_tail_without_a_word(tail: Running) -> None:
    tail.process.send_signal(signal.SIGINT)
    assert tail.process.wait(LONG) == 130
    assert present(tail.process.stdout).read() == b""
    [line] = tail.log.read_text().splitlines()
    assert line.startswith("following")


def test_tail_ends_quietly_when_its_reader_has_gone(tail: Running, session_hub: HubProcess) -> None:
    broadcast(session_hub, 2)
    assert json.loads(present(tail.process.stdout).readline())["event"] == "new_result"
    present(tail.process.stdout).close()
    broadcast(session_hub, 2)
    assert tail.process.wait(LONG) == 0
    [line] = tail.log.read_text().splitlines()
    assert line.startswith("following")


def test_a_consumer_whose_reader_has_gone_leaves_the_rest_to_the_broker(bus: Bus) -> None:
    ids = bus.send(60)
    consumer = bus.consume("--publish", "stdout", "--concurrency", "1", model="sim:?min_ms=5&max_ms=5&failure_rate=0")
    read = [json.loads(present(consumer.process.stdout).readline())["event_id"] for _ in range(5)]
    present(consumer.process.stdout).close()
    assert consumer.process.wait(LONG) == 1
    log = consumer.log.read_text()
    assert "Traceback" not in log
    assert log.count("infertool: standard output cannot be written") == 1
    left = [headers["event_id"] for headers, _ in bus.drain(bus.queue)]
    assert len(left) > 20
    assert set(ids) - set(left) <= set(ids[: len(ids) - len(left)])
    assert set(read) | set(left) <= set(ids)


HANGS = """
import sys
import threading


def predict(payload):
    print("in work", file=sys.stderr, flush=True)
    threading.Event().wait()
"""


def test_a_second_ctrl_c_leaves_at_once(bus: Bus) -> None:
    ids = bus.send(3)
    (bus.folder / "hangs.py").write_text(HANGS)
    consumer = bus.consume(model=f"{bus.folder / 'hangs.py'}:predict")
    consumer.wait_for("in work")
    consumer.process.send_signal(signal.SIGINT)
    consumer.wait_for("Ctrl-C again leaves at once")
    assert consumer.process.poll() is None
    consumer.process.send_signal(signal.SIGINT)
    assert consumer.process.wait(LONG) == 130
    assert "Traceback" not in consumer.log.read_text()
    assert bus.left() == len(ids)


def test_a_second_ctrl_c_leaves_the_terminal_in_order(embedded_bus: Bus) -> None:
    """The live status line hides the cursor."""
    bus = embedded_bus
    bus.send(1)
    (bus.folder / "hangs.py").write_text(HANGS)
    ours, theirs = os.openpty()
    command = [
        sys.executable, "-m", "infertool", "consume", "--broker", bus.broker.url, "--queue", bus.queue,
        "--phoenix", bus.hub.url, "--model", f"{bus.folder / 'hangs.py'}:predict",
    ]  # fmt: skip
    consumer = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs,
        env=environment(TERM="xterm", **CREDENTIALS),
    )  # fmt: skip
    os.close(theirs)
    shown = read_until(ours, b"in work")
    consumer.send_signal(signal.SIGINT)
    shown += read_until(ours, b"Ctrl-C again")
    consumer.send_signal(signal.SIGINT)
    assert consumer.wait(LONG) == 130
    with contextlib.suppress(OSError):  # this is how the end of a terminal is told
        while data := os.read(ours, 65536):
            shown += data
    os.close(ours)
    assert -1 < shown.rindex(b"\x1b[?25l") < shown.rindex(b"\x1b[?25h")


@pytest.mark.parametrize("team", [(), ("--processes", "2")])
def test_log_lines_stand_above_the_status_line(embedded_bus: Bus, team: tuple[str, ...]) -> None:
    bus = embedded_bus
    bus.send(200)
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
    command = [
        sys.executable, "-m", "infertool", "consume", "--broker", bus.broker.url, "--queue", bus.queue, *team,
        "--publish", "none", "--exit-when-idle", "1s", "--model", "sim:?min_ms=10&max_ms=20&failure_rate=0.2",
    ]  # fmt: skip
    consumer = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs,
        env=environment(TERM="xterm", INFERTOOL_CONSUME__STATE_DIR=str(bus.folder), **CREDENTIALS),
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # this is how the end of a terminal is told
        while data := os.read(ours, 65536):
            shown += data
    assert consumer.wait(LONG) == 0
    os.close(ours)
    lines = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"\r", shown).replace(b"\r", b"\n").splitlines()
    assert any(b" failed on attempt " in line for line in lines)
    assert any(b" succeeded, " in line for line in lines)
    assert not [line for line in lines if b" failed on attempt " in line and b" succeeded, " in line]


def read_until(terminal: int, text: bytes) -> bytes:
    shown = b""
    while text not in shown:
        assert select.select([terminal], [], [], LONG)[0], shown
        shown += os.read(terminal, 65536)
    return shown
