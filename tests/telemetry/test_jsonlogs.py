"""With --log-format json every line of standard error is one JSON object, from any writer."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import pytest

from infertool.telemetry import json_logs, logs, uncaught


@contextmanager
def json_stderr() -> Iterator[Callable[[], list[Any]]]:
    """Set up JSON logs on a stream of the test's own; yield a function that returns the written lines."""
    target = io.StringIO()
    root, log = logging.getLogger(), logs.log
    handlers, levels, stderr = list(root.handlers), (root.level, log.level), sys.stderr
    sys.stderr = target
    logs.set_up("info", "json")
    try:
        yield lambda: [json.loads(line) for line in target.getvalue().split("\n")[:-1]]
    finally:
        sys.stderr = stderr
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        log.handlers.clear()
        log.propagate = True
        log.setLevel(levels[1])
        logging.captureWarnings(capture=False)


def test_every_line_on_stderr_is_an_object() -> None:
    with json_stderr() as lines:
        logs.log.info("%s", "hello", extra={"fields": {"count": 3, "rate": 1.5, "links": {"broker": "connected"}}})
        print("a model prints\nand prints", file=sys.stderr)
        sys.stderr.write("in pieces, ")
        sys.stderr.write("one line\n")
        warnings.warn("a warning", stacklevel=1)
        logging.getLogger("some.library").error("a library's line")
        uncaught.say_trace(*_raised())
        found = lines()
    assert [each["message"] for each in found[:4]] == ["hello", "a model prints", "and prints", "in pieces, one line"]
    assert found[0]["count"] == 3
    assert found[0]["links"] == {"broker": "connected"}
    assert "a warning" in found[4]["message"]
    assert found[5]["logger"] == "some.library"
    assert found[-1]["error_type"] == "KeyError"
    assert "Traceback" in found[-1]["trace"]
    assert all({"time", "level", "logger", "message"} <= each.keys() for each in found)


def _raised() -> tuple[type[BaseException], BaseException, TracebackType | None]:
    empty: dict[str, int] = {}
    with pytest.raises(KeyError) as caught:
        empty["missing"]
    return caught.type, caught.value, caught.tb


@pytest.mark.parametrize(
    "value", ["\ud800", "\u2028\u0085\n\r", 2**70, -(2**64), float("nan"), {1, 2}, b"\xff", "\x1b]0;x\x07", None]
)
def test_values_that_json_or_orjson_rejects_are_logged(value: Any) -> None:
    with json_stderr() as lines:
        logs.log.warning("%s", value, extra={"fields": {"value": value}})
        assert len(lines()) == 1
        assert "value" in lines()[0]


def test_a_line_that_never_ends_is_written_in_pieces() -> None:
    with json_stderr() as lines:
        for _ in range(3000):
            sys.stderr.write("." * 10)
        pieces = [each["message"] for each in lines()]
        sys.stderr.write("\n")
        pieces.append(lines()[-1]["message"])
    assert "".join(pieces) == "." * 30_000
    assert max(map(len, pieces)) < 10_000


def test_a_line_of_another_process_that_never_ends_is_written_in_pieces() -> None:
    ours, theirs = os.pipe()
    with json_stderr() as lines:
        relay = json_logs.Relay(os.fdopen(ours, "rb"), {})
        with os.fdopen(theirs, "wb", buffering=0) as process:
            for _ in range(1000):
                process.write(b"." * 1000)
        for _ in range(120):
            relay.join()  # a second at most
        pieces = [each["message"] for each in lines()]
    assert "".join(pieces) == "." * 1_000_000
    assert max(map(len, pieces)) < 300_000


def test_threads_do_not_mix_their_lines() -> None:
    started = threading.Barrier(8)

    def work(name: str) -> None:
        started.wait()
        for _ in range(200):
            for piece in (name, name, name, "\n"):
                sys.stderr.write(piece)

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(8)]
    with json_stderr() as lines:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = [each["message"] for each in lines()]
    assert len(found) == 1600
    assert all(len(set(text)) == 1 and len(text) == 3 for text in found)


def test_a_prompt_is_written_before_its_answer() -> None:
    with json_stderr() as lines:
        sys.stderr.write("move 3 letters? [y/N] ")
        assert lines() == []
        sys.stderr.flush()
        sys.stderr.flush()
        sys.stderr.write("agreed\n")
        assert [each["message"] for each in lines()] == ["move 3 letters? [y/N] ", "agreed"]


RECORD = {"time": "2026-01-01T00:00:00.000Z", "level": "warning", "logger": "theirs", "message": "m"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (json.dumps(RECORD), {**RECORD, "process": "worker", "pid": 7}),
        (json.dumps({**RECORD, "pid": 8}), {**RECORD, "process": "worker", "pid": 8}),
        *(
            (line, {"level": "info", "message": line, "process": "worker", "pid": 7})
            for line in ("plain", "{no object", "{}", '{"message": "of a model"}', "[1]", "\ufffd\x00", "{" * 100_000)
        ),
        *((json.dumps(RECORD) + rest, {"message": json.dumps(RECORD) + rest, "pid": 7}) for rest in ("x", "{}")),
    ],
)
def test_lines_of_other_processes_become_records_that_name_the_process(line: Any, expected: Any) -> None:
    with json_stderr() as lines:
        json_logs.pass_on(line, {"process": "worker", "pid": 7})
        json_logs.pass_on("", {"process": "worker", "pid": 7})
        [found] = lines()
    assert found.keys() >= {"time", "level", "logger", "message"}
    assert found.items() >= expected.items()


def test_an_uncaught_error_is_text_without_json_logs(capsys: pytest.CaptureFixture[str]) -> None:
    uncaught.say_trace(*_raised())
    *_, last = capsys.readouterr().err.split("\n")[:-1]
    assert last == "KeyError: 'missing'"
