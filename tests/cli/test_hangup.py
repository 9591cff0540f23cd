"""SIGHUP ends every command as SIGTERM does, also when its terminal is gone and every write to it fails."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from infertool.channels.event import ChannelEvent
from infertool.channels.recording import line
from infertool.channels.topics import TopicFeed
from infertool.settings import PhoenixSettings
from tests.channels.conftest import Collected
from tests.consumer.harness import wait_until
from tests.support.brokers import is_empty, new_queue
from tests.support.embedded import EmbeddedBroker
from tests.support.hub import HubProcess
from tests.support.present import present
from tests.support.rawstomp import RawStomp
from tests.support.running import environment
from tests.support.terminal import Terminal

LONG = 120
# Terminal modes to reset: the alternate screen, the mouse, a hidden cursor, bracketed paste, focus events.
RESTORED = (b"\x1b[?1049l", b"\x1b[?1000l", b"\x1b[?1003l", b"\x1b[?25h", b"\x1b[?2004l", b"\x1b[?1004l")


class Console:
    """A command on its own controlling terminal, which can be closed."""

    def __init__(self, *arguments: str, stderr_only: bool = False) -> None:
        self.main, worker = pty.openpty()

        def control() -> None:
            fcntl.ioctl(worker, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [sys.executable, "-m", "infertool", *arguments],
            stdin=worker, stdout=subprocess.DEVNULL if stderr_only else worker, stderr=worker,
            env=environment(TERM="xterm-256color"), start_new_session=True, preexec_fn=control,  # noqa: PLW1509
        )  # fmt: skip
        os.close(worker)
        self.written = b""

    def wait(self, text: bytes) -> None:
        deadline = time.monotonic() + LONG
        while text not in self.written:
            assert time.monotonic() < deadline, self.written
            with contextlib.suppress(OSError):
                self.written += os.read(self.main, 1 << 16)
            assert self.process.poll() is None, self.written

    def hang_up(self) -> None:
        """Close the terminal; the kernel sends SIGHUP."""
        os.close(self.main)


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[EmbeddedBroker, HubProcess]]:
    broker = EmbeddedBroker().start()
    with HubProcess() as hub:
        yield broker, hub
    broker.stop()


def recorded(folder: Path) -> str:
    path = folder / "r.jsonl"
    path.write_bytes(
        line(ChannelEvent("public:results", "new_result", {"event_id": "e1", "status": "SUCCESS"}, 1.0)) + b"\n"
    )
    return str(path)


def letters(broker: EmbeddedBroker) -> str:
    queue, raw = new_queue(), RawStomp(broker.stomp_port)
    raw.send(queue, [({"original_destination": f"{queue}.back", "dlq_stage": "infer"}, b"{}")] * 50)
    raw.close()
    return queue


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
def test_a_signal_to_watch_restores_the_terminal(number: int, tmp_path: Path) -> None:
    env = {**environment(TERM="xterm-256color"), "LANG": "C.UTF-8"}
    command = [sys.executable, "-m", "infertool", "watch", "--from", recorded(tmp_path), "--speed", "max"]
    with Terminal(command, env=env) as terminal:
        terminal.wait(b"\x1b[?1049h", timeout_s=LONG)
        terminal.wait(b"e1", timeout_s=LONG)
        terminal.process.send_signal(number)
        assert terminal.process.wait(LONG) == 0
        for code in RESTORED:
            terminal.wait(code, timeout_s=LONG)


@pytest.fixture
def default_sigquit() -> Iterator[None]:
    """SIGQUIT as it is for a command in a terminal: a shell has what it runs in the background ignore it."""
    before = signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGQUIT, before)


@pytest.mark.usefixtures("default_sigquit")
def test_sigquit_to_watch_restores_the_terminal_and_ends_as_always(tmp_path: Path) -> None:
    env = {**environment(TERM="xterm-256color"), "LANG": "C.UTF-8"}
    command = [sys.executable, "-m", "infertool", "watch", "--from", recorded(tmp_path), "--speed", "max"]
    with Terminal(command, env=env) as terminal:
        before = terminal.modes()
        terminal.wait(b"\x1b[?1049h", timeout_s=LONG)
        terminal.wait(b"e1", timeout_s=LONG)
        assert terminal.modes() != before
        terminal.process.send_signal(signal.SIGQUIT)
        assert terminal.process.wait(LONG) == -signal.SIGQUIT
        for code in RESTORED:
            terminal.wait(code, timeout_s=LONG)
        assert terminal.modes() == before


@pytest.mark.usefixtures("default_sigquit")
def test_sigquit_shows_the_cursor_again(servers: tuple[EmbeddedBroker, HubProcess], tmp_path: Path) -> None:
    arguments, shown, _ = COMMANDS["consume"]
    terminal = Console(*arguments(*servers, tmp_path))
    terminal.wait(b"\x1b[?25l")
    terminal.wait(shown)
    os.write(terminal.main, b"\x1c")  # Ctrl-\\
    assert terminal.process.wait(LONG) == -signal.SIGQUIT
    while b"\x1b[?25h" not in terminal.written:
        terminal.written += os.read(terminal.main, 1 << 16)


Arguments = Callable[[EmbeddedBroker, HubProcess, Path], Sequence[str]]
# A command, a text that it shows once it runs, and its exit code.
COMMANDS: dict[str, tuple[Arguments, bytes, int]] = {
    "watch": (lambda _b, _h, folder: ["watch", "--from", recorded(folder), "--speed", "max"], b"e1", 0),
    "dev": (lambda _b, _h, _f: ["dev", "--stomp-port", "0", "--http-port", "0", "--no-gateway"], b"Ctrl-C stops it", 0),
    "consume": (
        lambda broker, hub, _f: [
            "consume", "--broker", broker.url, "--phoenix", hub.url, "--queue", new_queue(), "--model", "sim:",
        ],
        b"in progress", 0,
    ),
    "processes": (
        lambda broker, hub, _f: [
            "consume", "--broker", broker.url, "--phoenix", hub.url, "--queue", new_queue(), "--model", "sim:",
            "--processes", "2",
        ],
        b"in progress", 0,
    ),
    "loadgen": (
        lambda broker, _h, _f: ["loadgen", "--broker", broker.url, "--queue", new_queue(), "--qps", "20"],
        b"planned", 0,
    ),
    "loadgen processes": (
        lambda broker, _h, _f: [
            "loadgen", "--broker", broker.url, "--queue", new_queue(), "--qps", "20", "--processes", "2",
        ],
        b"planned", 0,
    ),
    "replay-dlq": (
        lambda broker, _h, _f: ["replay-dlq", letters(broker), "--broker", broker.url, "--rate", "1/s", "--yes"],
        b"replayed", 130,
    ),
    "demo": (lambda _b, _h, _f: ["demo", "--for", "10m"], b"req-", 0),
    "tail": (lambda _b, hub, _f: ["tail", "public:results", "--phoenix", hub.url], b"following", -signal.SIGHUP),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_whose_terminal_closes_ends_as_by_sigterm(
    name: str, servers: tuple[EmbeddedBroker, HubProcess], tmp_path: Path
) -> None:
    arguments, shows, code = COMMANDS[name]
    terminal = Console(*arguments(*servers, tmp_path))
    terminal.wait(shows)
    terminal.hang_up()
    assert terminal.process.wait(LONG) == code


def test_a_hangup_lets_a_consumer_finish_its_events_and_release_the_rest(
    servers: tuple[EmbeddedBroker, HubProcess],
) -> None:
    broker, hub = servers
    queue, seen = new_queue(), Collected()
    settings = PhoenixSettings(url=hub.url)
    feed = TopicFeed(settings, [settings.result_topic], on_events=seen, on_connection=lambda _: None)
    feed.connect()
    raw = RawStomp(broker.stomp_port)
    raw.send(queue, (({"event_id": f"{queue}-{n}"}, json.dumps({"n": n}).encode()) for n in range(1000)))
    terminal = Console(
        "consume", "--broker", broker.url, "--phoenix", hub.url, "--queue", queue, "--concurrency", "2",
        "--model", "sim:?min_ms=50&max_ms=100&failure_rate=0",
    )  # fmt: skip
    seen.wait(10, LONG)
    terminal.hang_up()
    assert terminal.process.wait(LONG) == 0
    left = {headers["event_id"] for headers, _ in raw.drain(queue, is_empty=lambda: is_empty(broker, queue))}
    raw.close()

    def finished() -> set[str]:
        return {each.payload["event_id"] for each in seen.all if each.payload["event_id"].startswith(queue)}

    wait_until(lambda: len(finished() | left) == 1000)
    feed.close(5)
    assert 10 <= len(finished()) < 1000
    assert not finished() & left


def test_a_command_with_ignored_hangups_continues(tmp_path: Path) -> None:
    """As with `nohup`."""
    ports = ("--stomp-port", "0", "--http-port", "0", "--no-gateway")
    process = subprocess.Popen(
        [sys.executable, "-m", "infertool", "dev", *ports, "-o", "json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),  # noqa: PLW1509
    )  # fmt: skip
    port = int(json.loads(present(process.stdout).readline())["stomp"].rpartition(":")[2])
    process.send_signal(signal.SIGHUP)
    raw = RawStomp(port)
    raw.send("/queue/a", [({}, b"still here")])
    assert [body for _, body in raw.drain("/queue/a")] == [b"still here"]
    raw.close()
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(LONG) == 0
    process.communicate()
