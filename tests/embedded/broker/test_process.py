"""The process: ready line, ports, signals, the parent's death, login, heartbeats."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise

import psutil
import pytest

from tests.embedded.broker.conftest import COMMAND, Connect, Embedded, start, stop
from tests.embedded.broker.raw import PATIENCE_S, Raw, frame


@pytest.fixture
def protected() -> Iterator[Embedded]:
    broker = start(ACTIVEMQ_USER="operator", ACTIVEMQ_PASSWORD="s3cret")
    yield broker
    errors = stop(broker)
    assert errors == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_it_cleanly(number: signal.Signals) -> None:
    broker = start()
    client = Raw(broker.port)
    client.connect()
    broker.process.send_signal(number)
    output, errors = broker.process.communicate(timeout=PATIENCE_S)
    assert (output, errors, broker.process.returncode) == (b"", b"", 0)
    assert client.closed()


def test_a_taken_port_is_one_line_and_exit_code_3(embedded: Embedded) -> None:
    command = [*COMMAND, "--port", str(embedded.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr == (
        f"cannot listen on 127.0.0.1:{embedded.port}: Address already in use; choose another --port\n"
    )


def test_it_listens_on_loopback_only(embedded: Embedded) -> None:
    listening = [
        connection.laddr for connection in psutil.Process(embedded.process.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]  # fmt: skip
    assert [tuple(address) for address in listening] == [("127.0.0.1", embedded.port)]


PARENT = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
print(child.pid, child.stdout.readline().decode(), flush=True)
sys.stdin.read()
"""


def test_it_dies_with_its_parent() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, *COMMAND, "--die-with-parent"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout
    pid, ready = parent.stdout.readline().decode().split(" ", 1)
    broker = psutil.Process(int(pid))
    client = Raw(json.loads(ready)["port"])
    client.connect()
    parent.kill()
    parent.communicate()
    assert client.closed()
    # Whoever adopted it may not reap it: a zombie has ended, too.
    deadline = time.monotonic() + PATIENCE_S
    while broker.is_running() and broker.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_without_that_option_it_outlives_its_standard_input() -> None:
    broker = start()
    assert broker.process.stdin
    broker.process.stdin.close()
    broker.process.stdin = None
    client = Raw(broker.port)
    assert client.connect().command == "CONNECTED"
    assert stop(broker) == ""


def test_the_login_of_the_environment_is_required(protected: Embedded) -> None:
    client = Raw(protected.port)
    assert client.connect(login="operator", passcode="s3cret").command == "CONNECTED"


@pytest.mark.parametrize(
    ("credentials", "named"),
    [
        ({"login": "operator", "passcode": "wrong"}, "operator"),
        ({"login": "other", "passcode": "s3cret"}, "other"),
        ({"login": "operator"}, "operator"),
        ({"login": "größe", "passcode": "\udcff"}, "größe"),
        ({}, "null"),
    ],
)
def test_a_wrong_login_is_refused_as_by_activemq(protected: Embedded, credentials: dict[str, str], named: str) -> None:
    client = Raw(protected.port)
    head = "".join(f"{key}:{value}\n" for key, value in credentials.items())
    error = client.ask(f"CONNECT\naccept-version:1.2\n{head}\n\0".encode(errors="surrogateescape"))
    text = f"User name [{named}] or password is invalid."
    assert (error.command, error["message"], error.body) == ("ERROR", text, text.encode())
    assert client.closed()


@pytest.mark.activemq
def test_activemq_refuses_a_wrong_login_with_the_same_frame(activemq: object) -> None:
    client = Raw(activemq.stomp_port)  # type: ignore[attr-defined]  # the fixture's class is not exported
    error = client.connect(passcode="wrong")
    text = "User name [admin] or password is invalid."
    assert (error.command, error["message"], error.body) == ("ERROR", text, text.encode())
    assert client.closed()


def test_no_heartbeat_comes_before_connected(embedded: Embedded) -> None:
    """Node's stompit takes a line end in front of CONNECTED for a broken frame."""
    client = Raw(embedded.port)
    client.connect(heart_beat="0,5000")
    assert client.beats == 0


def test_an_idle_client_gets_a_heartbeat_within_each_promised_interval(embedded: Embedded) -> None:
    client = Raw(embedded.port)
    client.connect(heart_beat="0,100")
    client.socket.settimeout(PATIENCE_S)
    for _ in range(5):
        assert client.socket.recv(1) == b"\n"


def test_a_client_without_its_promised_heartbeats_is_dropped(connect: Connect) -> None:
    assert connect(heart_beat="100,0") is not None
    silent = connect(heart_beat="200,0")
    assert silent.closed()


def test_a_client_with_its_promised_heartbeats_is_not(embedded: Embedded) -> None:
    while not keeps_its_promise(embedded):
        continue  # on a busy machine


def keeps_its_promise(embedded: Embedded) -> bool:
    """Beat for a while, and check that the connection lives. Return False if this process was silent for too long."""
    client = Raw(embedded.port)
    client.connect(heart_beat="400,0")
    beats = [time.monotonic()]
    with contextlib.suppress(OSError):
        for _ in range(24):
            client.write(b"\n")
            beats.append(time.monotonic())
            time.sleep(0.1)
    if max(later - earlier for earlier, later in pairwise([*beats, time.monotonic()])) > 0.4:
        return False
    assert client.sync() == []
    return True


def test_a_client_without_heartbeats_is_left_alone(embedded: Embedded) -> None:
    client = Raw(embedded.port)
    assert client.connect()["heart-beat"] == "0,0"
    time.sleep(0.5)
    client.write(frame("BEGIN", transaction="t"))
    assert client.sync() == []
    assert client.beats == 0


def test_other_modules_stay_out(embedded: Embedded) -> None:
    """Start-up is part of the product: the broker needs no model, no Phoenix, no web server."""
    script = "import sys, infertool.embedded.broker.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    loaded = set(done.stdout.split())
    assert not {"stomp", "websocket", "starlette", "uvicorn", "rich", "typer"} & loaded


def test_the_listening_socket_is_free_again_at_once() -> None:
    broker = start()
    client = Raw(broker.port)
    client.connect()
    assert stop(broker) == ""
    again = start("--port", str(broker.port))
    assert again.port == broker.port
    assert stop(again) == ""
