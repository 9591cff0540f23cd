"""A stranger's first minutes: the commands of README.md, as printed, in order, in fresh shells and a fresh checkout."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.readme.commands import README, ROOT, blocks, commands
from tests.support.tmux import Tmux

LONG = 300.0
TEXT = README.read_text()
SET_UP = "python3 -m venv .venv && .venv/bin/pip install '.[gateway]' && .venv/bin/infertool demo"
TESTS = "python3 -m venv .venv && .venv/bin/pip install nox && .venv/bin/nox"
ACTIVATE = ". .venv/bin/activate"


class Checkout:
    """A copy of what git knows, and the shells that are open in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "infertool"
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True,
            capture_output=True,
        )  # fmt: skip
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.folder / name)
        self.before: list[str] = []
        self._running: list[subprocess.Popen[str]] = []
        self._outputs = folder

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a user who has nothing of ours: the tests' own Python is not on the PATH."""
        ours = Path(sys.executable).parent
        path = [folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder) != ours]
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("INFERTOOL_", "VIRTUAL_ENV"))}
        return {**kept, "PATH": os.pathsep.join(path), "NO_COLOR": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def script(self, command: str) -> list[str]:
        """Return the command line of a fresh shell in which what came before in README was typed, too."""
        return [
            "bash",
            "-c",
            "\n".join([*self.before, f"exec {command}" if command.startswith("infertool") else command]),
        ]

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self.script(command), cwd=self.folder, env=self.environment, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=LONG * 2, check=False,
        )  # fmt: skip

    def start(self, command: str, *texts: str) -> subprocess.Popen[str]:
        """Start a command in a terminal of its own, and wait until it has printed `texts`."""
        output = self._outputs / f"output-{len(self._running)}"
        with output.open("w") as stream:
            process = subprocess.Popen(
                self.script(command), cwd=self.folder, env=self.environment, stdout=stream, stderr=stream, text=True,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self._running.append(process)
        self.wait(process, *texts)
        return process

    def terminal(self, command: str) -> Tmux:
        """Run a command in a terminal that can be read."""
        return Tmux(self.script(command), folder=self.folder, width=160, env=self.environment)

    def wait(self, process: subprocess.Popen[str], *texts: str) -> str:
        """Wait until a command has printed `texts`."""
        output = self._outputs / f"output-{self._running.index(process)}"
        deadline = time.monotonic() + LONG
        while True:
            shown = output.read_text()
            if all(text in shown for text in texts):
                return shown
            assert process.poll() is None, shown
            assert time.monotonic() < deadline, shown
            time.sleep(0.1)

    def interrupt(self, process: subprocess.Popen[str]) -> None:
        """Press Ctrl-C in the terminal of a command."""
        process.send_signal(signal.SIGINT)
        assert process.wait(LONG) in {0, 130}

    def close(self) -> None:
        """End what a failed test left behind."""
        for process in self._running:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    made = Checkout(tmp_path)
    yield made
    made.close()


def ask_the_demo(checkout: Checkout, command: str, question: str) -> None:
    """Run the demo to its end, and ask its gateway meanwhile."""
    demo = checkout.start(command, "gateway: curl http://127.0.0.1:8080/predict", "dashboard:")
    curl = checkout.run(f"{question} -sS")
    # The simulated model fails now and then.
    assert '"class":' in curl.stdout or "simulated failure" in curl.stdout, (curl.stdout, curl.stderr)
    shown = checkout.wait(demo, "0 lost")
    assert demo.wait(LONG) == 0
    assert re.search(r"^\d+ sent = \d+ results \+ \d+ failures .* 0 lost", shown, re.MULTILINE)


@pytest.mark.long
def test_every_command_works_as_printed(checkout: Checkout) -> None:
    left = iter(commands(TEXT))

    ask_the_demo(checkout, expect(left, SET_UP), expect(left, "curl"))

    checkout.before.append(expect(left, ACTIVATE))
    dev = checkout.start(expect(left, "infertool dev"), "stomp://127.0.0.1:61613", "http://127.0.0.1:4000/")
    consumer = checkout.start(expect(left, "infertool consume"), "model sim: (the simulator", "broker connected")
    load = checkout.run(expect(left, "infertool loadgen"))
    # What it says of latencies is this machine's affair, and may miss what is asserted.
    assert load.returncode in {0, 1}, load.stderr
    assert "held  lost == 0" in load.stdout, load.stdout
    with checkout.terminal(expect(left, "infertool watch")) as watch:
        watch.wait("results", timeout_s=LONG)
        watch.press("q")
        watch.wait("exit code 0", timeout_s=LONG)
    with checkout.terminal(expect(left, "infertool tail")) as tail:
        tail.wait("following", timeout_s=LONG)
        more = checkout.start("infertool loadgen --qps 20 --duration 10s", "sent")
        tail.wait("public:results new_result", timeout_s=LONG)
        tail.press("C-c")
        tail.wait("exit code 130", timeout_s=LONG)
    more.wait(LONG)
    checkout.interrupt(consumer)

    (checkout.folder / "app").mkdir()
    (checkout.folder / "app" / "model.py").write_text(model_of(TEXT))
    checkout.before.append(expect(left, "export"))
    away = checkout.run(expect(left, "infertool consume --broker stomp+ssl://mq-a"))
    assert away.returncode == 3, away.stderr
    assert "mq-a" in away.stderr
    assert checkout.run(expect(left, "infertool config init")).returncode == 0
    assert (checkout.folder / "infertool.toml").exists()
    shown = checkout.run(expect(left, "infertool config show"))
    assert shown.returncode == 0
    assert "ACTIVEMQ_USER" in shown.stdout

    install = checkout.run(expect(left, "pip install"))
    assert install.returncode == 0, install.stderr
    assert checkout.run(expect(left, "infertool loadgen --count 1")).returncode == 0
    onnx = checkout.run(expect(left, "infertool consume --queue /queue/trial"))
    assert onnx.returncode == 0, onnx.stderr
    assert '"class":"C"' in onnx.stdout
    server = checkout.start(expect(left, "infertool consume --model http://127.0.0.1"), "broker connected")
    checkout.interrupt(server)
    answering = checkout.start(expect(left, "infertool consume --queue requests"), "broker connected")
    called = checkout.run(expect(left, "infertool call requests"))
    assert (called.returncode, called.stdout) == (0, '{"class":"A","confidence":0.93}\n'), called.stderr
    assert "answered after" in called.stderr
    checkout.interrupt(answering)
    checkout.interrupt(dev)
    expect(left, TESTS)  # this run of the tests, in a checkout of its own
    assert list(left) == [], "README has commands that no test runs"


def expect(left: Iterator[str], start: str) -> str:
    """Return the next command of README, which begins with `start`."""
    command = next(left, "")
    assert command.startswith(start), f"README prints {command!r} where {start!r} is expected"
    return command


def model_of(text: str) -> str:
    """Return the model that README prints."""
    [block] = [block for block in blocks(text) if block[0] == "# app/model.py"]
    return "\n".join(block) + "\n"


def test_ci_runs_the_command_for_the_tests() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    lines = [line.removeprefix("exec ").replace("--quiet ", "") for line in script.split("\n")]
    assert [line for line in lines if line.startswith((".venv", "python3"))] == TESTS.split(" && ")
    assert TESTS in commands(TEXT)
    assert TESTS in commands((ROOT / "CONTRIBUTING.md").read_text())
