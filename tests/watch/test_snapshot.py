"""`watch --once`: snapshots for scripts, recordings, and usage errors."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from infertool.channels.recording import line
from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.watch import snapshot
from infertool.watch.bus import Bus
from infertool.watch.state import State
from tests.channels.conftest import Pusher
from tests.support.hub import HubProcess
from tests.support.running import environment, infertool
from tests.watch.samples import NOW, Still, failure, result


def record(folder: Path, *, cut: bool = False) -> Path:
    path = folder / "incident.jsonl"
    lines = [line(each) for each in [*(result(n, ago=60.0 - n) for n in range(50)), failure(99, ago=1.0)]]
    path.write_bytes(b"\n".join([*lines, b'{"topic": "public:res' if cut else b""]))
    return path


@contextmanager
def pushing() -> Iterator[str]:
    """Yield the address of a server on which one result follows another."""
    over = threading.Event()
    with HubProcess() as hub:
        pusher = Pusher(hub.url)

        def push() -> None:
            while not over.is_set():
                pusher.push("new_result", result(1).payload)

        thread = threading.Thread(target=push)
        thread.start()
        yield hub.url
        over.set()
        thread.join()
        pusher.close()


def test_once_prints_the_view_as_json() -> None:
    """The time starts when all topics are joined."""
    with pushing() as url:
        done = infertool("watch", "--phoenix", url, "--once", "--for", "3s", "-o", "json")
    seen = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert seen["link"]["state"] == "connected"
    assert 0 < seen["results"] == seen["events"]
    assert (seen["success"], seen["gaps"], seen["topics_lost"]) == (1.0, 0, {})
    assert seen["newest_results"][0]["event"] == "new_result"


def test_a_recording_on_a_full_disk_ends_watch_as_it_ends_tail() -> None:
    with pushing() as url:
        done = infertool("watch", "--phoenix", url, "--once", "--for", "1h", "--record", "/dev/full")
    assert (done.returncode, done.stdout) == (1, "")
    [error] = done.stderr.splitlines()
    assert error.startswith("infertool: the record /dev/full cannot be written: No space left on device; make room")


def test_recording_a_recording_on_a_full_disk(tmp_path: Path) -> None:
    path = record(tmp_path)
    done = infertool("watch", "--from", str(path), "--speed", "max", "--once", "--record", "/dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith("infertool: the record /dev/full cannot be written")


@pytest.mark.parametrize("form", [(), ("-o", "json")])
def test_a_full_standard_output_is_one_line(tmp_path: Path, form: tuple[Any, ...]) -> None:
    path = record(tmp_path)
    command = [sys.executable, "-m", "infertool", "watch", "--from", str(path), "--speed", "max", "--once", *form]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "infertool: standard output cannot be written: No space left on device\n",
    )


def test_a_gap_is_in_the_snapshot() -> None:
    state = State("a", 100)
    for link, at in (
        (ConnectionState.CONNECTED, NOW),
        (ConnectionState.LOST, NOW + 60),
        (ConnectionState.CONNECTED, NOW + 65),
    ):
        state.take_connection(ConnectionEvent(link, "ws://a", 1, "gone", None), at)
    shown = snapshot.text(Bus(state, Still()))
    assert "not connected 03:01:00 to 03:01:05 (5s): events sent then are missing" in shown


def test_a_recording_is_summed_up_at_once_and_a_cut_line_is_reported(tmp_path: Path) -> None:
    path = record(tmp_path, cut=True)
    seen = json.loads(infertool("watch", "--from", str(path), "--speed", "max", "--once", "-o", "json").stdout)
    assert (seen["bus"], seen["link"]["state"], seen["results"], seen["failures"]) == (str(path), "played", 50, 1)
    assert seen["success"] == round(50 / 51, 4)
    assert seen["note"] == f"{path}: 1 line(s) are no records and were left out"
    assert seen["newest_failures"][0]["label"] == "infer: InferenceError: the model said no"
    said = infertool("watch", "--from", str(path), "--speed", "max", "--once").stderr
    assert said == f"{path}: 1 line(s) are no records and were left out\n"


def test_a_recording_from_standard_input_as_text(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "infertool", "watch", "--from", "-", "--speed", "max", "--once"]
    done = subprocess.run(
        command, input=record(tmp_path).read_bytes(), capture_output=True, env=environment(), timeout=120, check=True
    )
    text = done.stdout.decode()
    assert "standard input played to its end" in text
    assert "98.0% ok" in text
    assert "req-0049" in text
    assert "the model said no" in text


def test_a_recording_at_its_own_pace(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(line(result(1, ago=20)) + b"\n" + line(result(2, ago=0)))
    began = time.monotonic()
    done = infertool("watch", "--from", str(path), "--speed", "20", "--once", "-o", "json")
    assert json.loads(done.stdout)["results"] == 2
    assert time.monotonic() - began > 1.0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--once", "--phoenix", "ws://127.0.0.1:9/socket/websocket"], 3, "nothing listens at"),
        ([], 2, "there is no terminal to show it on"),
        (["--for", "3s"], 2, "--for is for --once"),
        (["--from", "missing.jsonl", "--once"], 1, "missing.jsonl cannot be read"),
        (["--from", "x", "--once", "--bus", "a"], 2, "it takes neither topics nor --bus"),
        (["--once", "--bus", "nowhere"], 2, "there is no profile nowhere"),
        (["--once", "--speed", "fast"], 2, "'fast' is no speed"),
        (["--once", "--record", "no/such/folder"], 1, "cannot be written"),
    ],
)
def test_what_cannot_be(
    arguments: list[str], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = infertool("watch", *arguments)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_a_topic_that_is_refused_and_one_that_is_not(tmp_path: Path) -> None:
    with HubProcess(token="s3cret") as hub:
        done = infertool(
            "watch", "public:results", "service:inference", "--phoenix", hub.url, "--once", "--for", "2s", "-o", "json",
            PHOENIX_SERVICE_TOKEN="",
        )  # fmt: skip
        seen = json.loads(done.stdout)
        assert list(seen["topics_lost"]) == ["service:inference"]
        alone = infertool("watch", "service:inference", "--phoenix", hub.url, "--once", "-o", "json")
        assert alone.returncode == 3
        assert "joining service:inference" in alone.stderr


def test_settings_of_keys_are_checked(tmp_path: Path) -> None:
    config = tmp_path / "infertool.toml"
    config.write_text('[watch.keys]\npauze = "p"\n')
    done = infertool("--config", str(config), "watch", "--once")
    assert done.returncode == 2
    assert "watch.keys.pauze: there is no such action; did you mean 'pause'?" in done.stderr
