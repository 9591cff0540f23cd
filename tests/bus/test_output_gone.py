"""Standard output that cannot be written (a full disk, a reader that has gone, none at all): one line, exit code 1."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bus.conftest import Bus
from tests.support.hub import HubProcess
from tests.support.running import CREDENTIALS, LONG, environment

PLACES = ["/dev/full", "closed", "closed pipe"]


def run_to(place: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command with `place` as its standard output."""
    command = [sys.executable, "-m", "infertool", *arguments]
    reader, writer = os.pipe()
    os.close(reader)
    if place != "closed pipe":
        command = ["sh", "-c", 'exec "$@" ' + (">&-" if place == "closed" else f"> {place}"), "sh", *command]
    try:
        return subprocess.run(
            command, stdout=writer, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, check=False,
            timeout=120, env=environment(**CREDENTIALS), cwd=cwd,
        )  # fmt: skip
    finally:
        os.close(writer)


def check(done: subprocess.CompletedProcess[str], says: str = "") -> None:
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr
    last = done.stderr.rstrip("\n").split("\n")[-1]
    assert last.startswith("infertool: standard output cannot be written: "), done.stderr
    assert done.stderr.count("standard output cannot be written") == 1
    assert says in last, last


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "arguments",
    [["config", "show"], ["config", "show", "-o", "json"], ["config", "show", "-o", "toml"], ["config", "path"],
     ["--version"], ["--help"], ["consume", "--help"], ["config", "--help"], ["loadgen", "report", "--help"]],
)  # fmt: skip
def test_what_only_shows(place: str, arguments: list[str], tmp_path: Path) -> None:
    done = run_to(place, *arguments, cwd=tmp_path)
    if place == "closed pipe" or (place == "closed" and "--help" in arguments):  # as with `| head`
        assert (done.returncode, done.stderr) == (0, "")
        return
    check(done)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["config", "show"], ["--version"], ["--help"], ["consume", "--help"]])
def test_what_only_shows_with_json_logs(arguments: list[str], tmp_path: Path) -> None:
    done = run_to("/dev/full", "--log-format", "json", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stderr)["message"].startswith("standard output cannot be written: ")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", [[], ["-o", "json"]])
def test_the_summary_of_a_consumer(embedded_bus: Bus, place: str, form: list[str]) -> None:
    embedded_bus.send(5, poison=2)
    done = run_to(
        place, "consume", "--broker", embedded_bus.broker.url, "--queue", embedded_bus.queue, "--dlq", embedded_bus.dlq,
        "--publish", "none", "--model", "sim:?failure_rate=0", "--max-messages", "5", *form, cwd=embedded_bus.folder,
    )  # fmt: skip
    check(done, "this was done: 5 received, 3 succeeded, 2 dead-lettered")
    assert embedded_bus.left() == 0


@pytest.mark.parametrize("place", PLACES)
def test_outcomes_that_cannot_be_written_leave_their_events(bus: Bus, place: str) -> None:
    bus.send(5)
    done = run_to(
        place, "consume", "--broker", bus.broker.url, "--queue", bus.queue, "--dlq", bus.dlq, "--publish", "stdout",
        "--model", "sim:?failure_rate=0", "--exit-when-idle", "60s", cwd=bus.folder,
    )  # fmt: skip
    check(done, "" if place == "closed" else "this was done: ")
    assert bus.left() == 5


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("more", [[], ["--executor", "processes", "--workers", "1"], ["--log-format", "json"]])
def test_standard_error_that_cannot_be_written_costs_lines_alone(
    embedded_bus: Bus, place: str, more: list[str]
) -> None:
    """Of infertool, and of a model that prints."""
    model = embedded_bus.folder / "prints.py"
    model.write_text("""
import sys

def predict(payload):
    print("to standard output")
    print("to standard error", file=sys.stderr)
    sys.stdout.buffer.write(b"bytes")
    sys.stdout.flush()
    return {}
""")
    embedded_bus.send(5)
    reader, writer = os.pipe()
    os.close(reader)
    redirection = {"/dev/full": "2> /dev/full", "closed": "2>&-", "closed pipe": ""}[place]
    try:
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "infertool", "consume",
             "--broker", embedded_bus.broker.url, "--queue", embedded_bus.queue, "--dlq", embedded_bus.dlq,
             "--publish", "none", "--model", f"{model}:predict", "--max-messages", "5", "-o", "json", *more],
            stdout=subprocess.PIPE, stderr=writer, stdin=subprocess.DEVNULL, text=True, check=False, timeout=LONG,
            env=environment(**CREDENTIALS), cwd=embedded_bus.folder,
        )  # fmt: skip
    finally:
        os.close(writer)
    assert done.returncode == 0
    assert json.loads(done.stdout)["succeeded"] == 5


@pytest.mark.parametrize("place", PLACES)
def test_a_load_and_its_report(embedded_bus: Bus, place: str) -> None:
    saved = embedded_bus.folder / "run.jsonl"
    done = run_to(
        place, "loadgen", "--broker", embedded_bus.broker.url, "--queue", embedded_bus.queue, "--qps", "20",
        "--duration", "1s", "--save", str(saved), "--quiet",
    )  # fmt: skip
    check(done, f"this was done: 20 events sent; {saved} holds the run")
    assert embedded_bus.left() == 20
    report = run_to(place, "loadgen", "report", str(saved))
    if place == "closed pipe":
        assert (report.returncode, report.stderr) == (0, "")
    else:
        check(report)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", ["tail", "watch", "dev"])
def test_what_follows(session_hub: HubProcess, place: str, command: str, tmp_path: Path) -> None:
    record = tmp_path / "r.jsonl"
    record.write_text(
        json.dumps({"topic": "public:results", "event": "new_result", "payload": {"a": 1}, "at": 1.0}) + "\n"
    )
    options = {
        "tail": ["tail", "public:results", "--phoenix", session_hub.url, "--since-file", str(record)],
        "watch": ["watch", "--once", "--from", str(record)],
        "dev": ["dev", "--stomp-port", "0", "--http-port", "0", "--no-gateway"],
    }
    done = run_to(place, *options[command], cwd=tmp_path)
    if place == "closed pipe":
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    else:
        check(done)
