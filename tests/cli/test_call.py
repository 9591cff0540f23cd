"""`infertool call`: replies on stdout, all else on stderr, and an exit code for each end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infertool import codec
from tests.support.brokers import TIMEOUT_S, new_queue
from tests.support.embedded import EmbeddedBroker
from tests.support.responder import Responder, echo, failure, reply, silent
from tests.support.running import CREDENTIALS, environment


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    started = EmbeddedBroker().start()
    yield started
    started.stop()


@pytest.fixture
def queue() -> str:
    return new_queue().removeprefix("/queue/")


def call(
    broker: EmbeddedBroker, *arguments: str, stdin: bytes = b"", code: int = 0
) -> subprocess.CompletedProcess[bytes]:
    """Run `infertool call` and check its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "infertool", "call", *arguments, "--broker", broker.url],
        input=stdin, capture_output=True, timeout=TIMEOUT_S, env=environment(**CREDENTIALS),
    )  # fmt: skip
    assert done.returncode == code, (done.stdout[-2000:], done.stderr[-2000:])
    return done


def test_the_reply_is_on_stdout_and_what_is_said_of_it_on_stderr(broker: Any, queue: str) -> None:
    def answer(message: Any) -> Any:
        return [reply(message, b'{"y": 2, "text": "\\u00fc"}', status="SUCCESS", model_version="3")]

    with Responder(broker.url, queue, answer) as responder:
        done = call(broker, queue, '{"x": 1}', "--header", "tenant=a", "--priority", "7")
        [request] = responder.wait_for(1)
    assert json.loads(done.stdout) == {"y": 2, "text": "ü"}
    assert done.stdout.count(b"\n") == 1
    assert f"/queue/{queue} answered after".encode() in done.stderr
    assert b"status SUCCESS, model_version 3" in done.stderr
    assert (json.loads(request.body), request.headers["tenant"], request.properties.priority) == ({"x": 1}, "a", 7)


def test_payloads_come_from_files_and_standard_input(broker: Any, queue: str, tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text("[1, 2]\n")
    with Responder(broker.url, queue):
        assert json.loads(call(broker, queue, f"@{file}").stdout) == [1, 2]
        assert json.loads(call(broker, queue, "-", stdin=b'"piped"').stdout) == "piped"
        assert json.loads(call(broker, queue, stdin=b"null").stdout) is None


def test_messagepack_is_shown_as_json(broker: Any, queue: str) -> None:
    def answer(message: Any) -> Any:
        value = codec.MSGPACK.decode(message.body)
        return [reply(message, codec.MSGPACK.encode({"raw": b"\0\1", 5: value}))]

    with Responder(broker.url, queue, answer) as responder:
        done = call(broker, queue, '{"x": 1}', "--codec", "msgpack")
        assert responder.wait_for(1)[0].properties.content_type == "application/msgpack"
    assert json.loads(done.stdout) == {"raw": "base64:AAE=", "5": {"x": 1}}


def test_a_document_for_programs(broker: Any, queue: str) -> None:
    with Responder(broker.url, queue, lambda message: [reply(message, b"1", status="SUCCESS")]) as responder:
        document = json.loads(call(broker, queue, "{}", "-o", "json").stdout)
        assert (document["outcome"], document["value"], document["headers"]["status"]) == ("answered", 1, "SUCCESS")
        assert document["elapsed_ms"] > 0
        responder.answer = lambda message: [failure(message, error="bad", retryable=False)]
        document = json.loads(call(broker, queue, "{}", "-o", "json", code=1).stdout)
    assert (document["outcome"], document["error"], document["retryable"]) == ("failed", "bad", False)


def test_a_failure_of_the_server(broker: Any, queue: str) -> None:
    with Responder(broker.url, queue, lambda message: [failure(message, error="bad\x1b[31m")]):
        done = call(broker, queue, "{}", code=1)
    assert done.stdout == b""
    assert b"failed in the stage infer: ValueError: bad\\x1b" in done.stderr


def test_a_reply_that_is_nested_too_deep_is_one_line(broker: Any, queue: str) -> None:
    with Responder(broker.url, queue, lambda message: [reply(message, b"[" * 5000 + b"]" * 5000)]):
        done = call(broker, queue, "{}", code=1)
        document = call(broker, queue, "{}", "-o", "json", code=1).stdout
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1
    assert b"cannot be read" in done.stderr
    assert "cannot be read" in json.loads(document)["error"]


def test_no_server_in_time(broker: Any, queue: str) -> None:
    done = call(broker, queue, "{}", "--timeout", "300ms", code=4)
    assert done.stdout == b""
    assert b"no reply from" in done.stderr
    assert (
        json.loads(call(broker, queue, "{}", "--timeout", "0.1", "-o", "json", code=4).stdout)["outcome"] == "timed_out"
    )


def test_no_broker(queue: str) -> None:
    class Nowhere:
        url = "stomp://127.0.0.1:1"

    assert b"127.0.0.1:1" in call(Nowhere(), queue, "{}", code=3).stderr  # type: ignore[arg-type]


def test_numbers_go_and_come_as_they_are_written(broker: Any, queue: str) -> None:
    numbers = b"[12345678901234567.89,0.1234567890123456789,12345678901234567890123]"
    with Responder(broker.url, queue, lambda message: [reply(message, message.body)]) as responder:
        done = call(broker, queue, numbers.decode())
        document = call(broker, queue, numbers.decode(), "-o", "json").stdout
        assert [each.body for each in responder.wait_for(2)] == [numbers, numbers]
    assert done.stdout.strip() == numbers
    assert b'"value":' + numbers in document


@pytest.mark.parametrize(
    "arguments",
    [
        ("q", "{not json"), ("q", "@/no/such/file"), ("a,b", "{}"), ("/topic/t", "{}"), ("q", "{}", "--timeout", "0s"),
        ("q", "{}", "--timeout", "soon"), ("q", "{}", "--header", "x"), ("q", "{}", "--header", "reply-to=/queue/x"),
        ("q", "{}", "--header", "correlation-id=1"), ("q", "{}", "--codec", "xml"), ("q", "{}", "--concurrency", "2"),
        ("q", "{}", "--count", "0"), ("q", "123456789012345678901234567890", "--codec", "msgpack"), (),
    ],
)  # fmt: skip
def test_usage(broker: Any, arguments: tuple[str, ...]) -> None:
    assert call(broker, *arguments, code=2).stdout == b""


def test_many_calls(broker: Any, queue: str) -> None:
    with Responder(broker.url, queue):
        done = call(broker, queue, "{}", "--count", "200", "--concurrency", "16")
        document = json.loads(call(broker, queue, "{}", "--count", "50", "--concurrency", "5", "-o", "json").stdout)
    assert b"200: 200 answered" in done.stdout
    assert b"reply    200" in done.stdout
    assert (document["calls"], document["answered"], document["failures"]) == (50, 50, {})
    assert 0 < document["latency"]["p50_ms"] <= document["latency"]["max_ms"]


def test_many_calls_of_which_some_fail(broker: Any, queue: str) -> None:
    def answer(message: Any) -> Any:
        match int(message.correlation_id.rpartition("-")[2]) % 4:
            case 0:
                return [failure(message, error="bad")]
            case 1:
                return silent(message)
        return echo(message)

    with Responder(broker.url, queue, answer):
        arguments = (queue, "{}", "--count", "20", "--concurrency", "20", "--timeout", "6s", "-o", "json")
        done = call(broker, *arguments, code=1)
    document = json.loads(done.stdout)
    assert (document["calls"], document["answered"], document["failures"]) == (20, 10, {"failed": 5, "timed out": 5})
    assert document["errors"]["ValueError: bad"] == 5
    assert b"10 of 20 calls were not answered" in done.stderr


@pytest.mark.parametrize("many", [(), ("--count", "1000", "--concurrency", "4")])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(broker: Any, queue: str, many: tuple[str, ...], number: signal.Signals) -> None:
    with Responder(broker.url, queue, silent) as responder:
        process = subprocess.Popen(
            [sys.executable, "-m", "infertool", "call", queue, "{}", "--timeout", "1h", "--broker", broker.url, *many],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(**CREDENTIALS),
        )  # fmt: skip
        responder.wait_for(1)
        began = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, errors
    assert b"Traceback" not in errors
    assert time.monotonic() - began < TIMEOUT_S
