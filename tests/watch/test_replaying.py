"""The key `r`: the confirmation, the command, its progress, and its end."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from textual.pilot import Pilot

from infertool.watch import replay
from tests.support.present import present
from tests.watch.driving import driven, press, seen, settled, shown
from tests.watch.samples import bus, failure
from tests.watch.test_actions import filled, run

# Stands in for infertool: tells its arguments and its progress, and goes on until it is let go or ended.
PROGRAM = """
import json, os, signal, sys, time
folder = sys.argv[1]
def ended(*_):
    open(f"{folder}/ended", "w").close()
    sys.exit(130)
signal.signal(signal.SIGTERM, ended)
with open(f"{folder}/ran", "a") as ran:
    ran.write(json.dumps([os.getpid(), *sys.argv[2:]]) + chr(10))
print("1000 of 5000 looked at", file=sys.stderr, flush=True)
while not os.path.exists(f"{folder}/go"):
    time.sleep(0.05)
print("warned of something", file=sys.stderr)
print("replayed 1; 27 of 28 remain")
"""


class Program:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def ran(self) -> list[list[Any]]:
        ran = self.folder / "ran"
        return [json.loads(line) for line in ran.read_text().splitlines()] if ran.exists() else []

    def go(self) -> None:
        (self.folder / "go").touch()


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    monkeypatch.setattr(replay, "_PROGRAM", (sys.executable, str(script), str(tmp_path)))
    made = Program(tmp_path)
    yield made
    made.go()


async def begun(pilot: Pilot[None]) -> None:
    await press(pilot, "tab", "down", "r", "y")
    assert await seen(pilot, "1000 of 5000 looked at")


def test_it_shows_the_command_and_runs_it_only_after_a_yes(program: Program) -> None:
    async def steps() -> None:
        made = filled(options=("--profile=blue",))
        async with driven([made], size=(100, 30)) as pilot:
            await press(pilot, "r")
            assert await seen(pilot, "Select a failure first")
            await press(pilot, "tab", "down", "r")
            assert "$ infertool --profile=blue replay-dlq --id=e-69 --yes" in shown(pilot)
            await press(pilot, "enter")
            await press(pilot, "r", "escape", "r", "n")
            assert program.ran == []
            program.go()
            await press(pilot, "r", "y")
            await pilot.app.workers.wait_for_complete()
            await settled(pilot)
            assert [words for _, *words in program.ran] == [["--profile=blue", "replay-dlq", "--id=e-69", "--yes"]]
            assert await seen(pilot, "replayed 1; 27 of 28 remain")

    run(steps())


def test_it_names_a_long_event_id_in_full(program: Program) -> None:
    async def steps() -> None:
        made = bus()
        made.take([failure(1, event_id="é" * 300)])
        async with driven([made], size=(100, 30)) as pilot:
            program.go()
            await press(pilot, "tab", "r", "y")
            await pilot.app.workers.wait_for_complete()
            assert [words for _, *words in program.ran] == [["replay-dlq", f"--id={'é' * 300}", "--yes"]]

    run(steps())


def test_its_progress_is_shown_and_it_is_not_ended_unasked(program: Program) -> None:
    async def steps() -> None:
        async with driven([filled()], size=(100, 30)) as pilot:
            await begun(pilot)
            for key in ("q", "ctrl+c"):
                await press(pilot, key)
                assert await seen(pilot, "A replay still runs")
                await press(pilot, "n")
                assert pilot.app.is_running
                assert psutil.pid_exists(program.ran[0][0])
            program.go()
            assert await seen(pilot, "replayed 1; 27 of 28 remain")
            await press(pilot, "q")
            assert pilot.app._exit

    run(steps())


def test_leaving_ends_it_when_that_is_agreed(program: Program) -> None:
    async def steps() -> None:
        async with driven([filled()], size=(100, 30)) as pilot:
            await begun(pilot)
            process = psutil.Process(program.ran[0][0])
            await press(pilot, "q")
            assert await seen(pilot, "y: end it and leave")
            await pilot.press("y")
            await pilot.pause()
            assert pilot.app._exit
            psutil.wait_procs([process], timeout=60)
            assert (program.folder / "ended").exists()

    run(steps())


def test_a_second_ctrl_c_leaves_and_the_replay_goes_on(program: Program) -> None:
    async def steps() -> None:
        async with driven([filled()], size=(100, 30)) as pilot:
            await begun(pilot)
            await press(pilot, "ctrl+c")
            assert await seen(pilot, "A replay still runs")
            await pilot.press("ctrl+c")
            await pilot.pause()
            assert pilot.app._exit
            assert psutil.Process(program.ran[0][0]).is_running()
            assert not (program.folder / "ended").exists()

    run(steps())


def test_a_command_that_cannot_be_run_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "_PROGRAM", ("/no/such/program",))

    async def steps() -> None:
        async with driven([filled()], size=(100, 30)) as pilot:
            await press(pilot, "tab", "r", "y")
            assert await seen(pilot, "it could not be run")

    run(steps())


@pytest.mark.parametrize("width", [80, 100, 119, 120, 160])
@pytest.mark.parametrize("between", [("enter", "escape"), ("enter", "enter"), ("/", "escape"), ("/", *"true", "enter")])
def test_the_focus_comes_back_to_the_list_it_left(width: int, between: tuple[str, ...]) -> None:
    async def steps() -> None:
        async with driven([filled()], size=(width, 30)) as pilot:
            await press(pilot, "tab")
            for key in between:
                await press(pilot, key)
            assert present(pilot.app.screen.focused).id == "alerts"
            await press(pilot, "r")
            assert "Select a failure first" not in shown(pilot)

    run(steps())


def test_the_focus_comes_back_from_a_small_terminal_and_another_bus() -> None:
    async def steps() -> None:
        async with driven([filled(), bus("staging")], size=(100, 30)) as pilot:
            await press(pilot, "tab")
            await pilot.resize_terminal(20, 5)
            assert await seen(pilot, "is too small")
            await pilot.resize_terminal(100, 30)
            assert await seen(pilot, "req-0070")
            await settled(pilot)
            assert present(pilot.app.screen.focused).id == "alerts"
            await press(pilot, "enter", "b", "b")
            assert present(pilot.app.screen.focused).id == "alerts"

    run(steps())
