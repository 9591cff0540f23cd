"""Calls to `consume --reply` as processes: results and failures, and servers that are killed while they answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest

from infertool.errors import CallTimeoutError, RemoteFailureError
from infertool.rpc import Call
from tests.rpc.conftest import PLACES, Connect, Place, place
from tests.support.brokers import TIMEOUT_S
from tests.support.running import CREDENTIALS, Running, infertool

LONG = TIMEOUT_S
SERVICE = """
import time

def handle(payload):
    if payload == "fail":
        raise ValueError("no such customer")
    time.sleep(0.02)
    return {"asked": payload}
"""
Serve = Callable[[], Running]


@pytest.fixture(params=[each for each in PLACES if str(each.id).partition("-")[0] in {"activemq", "rabbitmq"}])
def broker(request: pytest.FixtureRequest) -> Place:
    return place(request)


@pytest.fixture
def queue(broker: Place) -> str:
    return broker.new_queue()


@pytest.fixture
def serve(tmp_path: Path, broker: Place, queue: str) -> Iterator[Serve]:
    """Start servers of one queue; they are killed at the end."""
    service = tmp_path / "service.py"
    service.write_text(SERVICE)
    with ExitStack() as servers:

        def serve() -> Running:
            server = Running(
                tmp_path / f"server-{time.monotonic_ns()}",
                "consume", "--broker", broker.url, "--queue", queue, "--dlq", f"{queue}.dead",
                "--model", f"{service}:handle", "--reply", "--concurrency", "4", "-o", "json",
                **CREDENTIALS, INFERTOOL_CONSUME__STATE_DIR=str(tmp_path / "state"),
            )  # fmt: skip
            servers.callback(server.kill)
            return server

        yield serve


@pytest.mark.long
def test_a_call_to_a_python_function(broker: Place, queue: str, serve: Serve, connect: Connect) -> None:
    serve().wait_for("broker connected")
    client = connect(broker.url)
    for codec in ("json", "msgpack"):
        reply = client.call(queue, {"n": 1}, timeout_s=LONG, codec=codec)
        assert reply.value == {"asked": {"n": 1}}
        assert (reply.status, reply.codec.name) == ("SUCCESS", codec)
        assert reply.headers["event_id"]
        assert float(reply.headers["processing_ms"]) >= 20
    reply = client.call(queue, b"\0\xff", timeout_s=LONG, codec="msgpack")
    assert reply.value == {"asked": b"\0\xff"}
    with pytest.raises(RemoteFailureError) as caught:
        client.call(queue, "fail", timeout_s=LONG)
    error = caught.value
    assert (error.error, error.error_type, error.stage) == ("no such customer", "ValueError", "infer")
    assert error.event_id
    done = infertool("call", queue.removeprefix("/queue/"), "[1]", "--broker", broker.url, **CREDENTIALS)
    assert (done.returncode, done.stdout) == (0, '{"asked":[1]}\n'), done.stderr
    assert "status SUCCESS" in done.stderr


class Killer:
    """Three servers. Once a second one that works is killed, while another works, and a new one started."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._servers = [serve() for _ in range(3)]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.kills = 0

    def __enter__(self) -> Self:
        for server in self._servers:
            server.wait_for("broker connected")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(1.0):
            working = [each for each in self._servers if "broker connected" in each.log.read_text()]
            # On a busy machine another may take longer to start than three are killed in.
            if len(working) > 1:
                working[0].kill()
                self._servers.remove(working[0])
                self._servers.append(self._serve())
                self.kills += 1


@pytest.mark.long
def test_1_000_calls_while_a_server_is_killed_every_second(
    broker: Place, queue: str, serve: Serve, connect: Connect
) -> None:
    """Every caller gets its own answer, or a timeout at its own deadline."""
    client, patience_s, hurry_s = connect(broker.url), 30.0, 0.03
    ended: dict[str, float] = {}
    calls: list[Call] = []
    with Killer(serve) as killer:
        for n in range(1000):
            # Some callers do not wait for as long as an answer mostly takes.
            call = client.call_nowait(queue, n, timeout_s=hurry_s if n % 10 == 0 else patience_s)
            call.add_done_callback(lambda each: ended.setdefault(each.id, time.monotonic()))  # type: ignore[attr-defined]
            calls.append(call)
            time.sleep(0.008)
        _, open_ = wait(calls, LONG)
    assert not open_
    assert killer.kills > 1
    answered = timed_out = 0
    worst_s = 0.0
    for n, call in enumerate(calls):
        error = call.exception()
        if error is None:
            assert call.result().value == {"asked": n}
            answered += 1
            continue
        if isinstance(error, RemoteFailureError):
            # A request that was in progress at two kills is taken for their cause. A server's word that it is too late
            # may come just before the deadline here.
            assert error.stage in {"crash", "expired"}
            answered += 1
            continue
        assert isinstance(error, CallTimeoutError), error
        timed_out += 1
        lateness_s = ended[call.id] - call.deadline
        assert lateness_s >= 0
        worst_s = max(worst_s, lateness_s)
    counts = client.counts
    assert answered + timed_out == 1000 == counts.answered + counts.failed + counts.timed_out
    # A busy machine may wake a thread late; a wait that is not the call's own would be that of those with patience.
    assert worst_s < patience_s / 2
    assert counts.unknown == 0
    assert timed_out > 0
    assert answered > 0
    serve().wait_for("broker connected")
    assert client.call(queue, "after", timeout_s=LONG).value == {"asked": "after"}
