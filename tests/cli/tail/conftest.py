"""Fixtures: a channel server, and a client that broadcasts on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.channels.conftest import pusher  # noqa: F401 - on this folder's hub
from tests.support.hub import HubProcess
from tests.support.present import present
from tests.support.running import Running

LONG = 60


@pytest.fixture(scope="session")
def hub() -> Iterator[HubProcess]:
    with HubProcess() as running:
        yield running


@pytest.fixture
def tailing(hub: HubProcess, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Return a function that starts `tail` on the public topics, by default of the channel server."""
    started: list[Running] = []

    def start(*options: str, following: int = 1) -> Running:
        phoenix = () if "--phoenix" in options else ("--phoenix", hub.url)
        running = Running(tmp_path / "runs", "tail", "public:results", "public:alerts", *phoenix, *options)
        started.append(running)
        running.wait_for("following", following)
        return running

    yield start
    for running in started:
        running.kill()
        present(running.process.stdout).close()


def output(running: Running) -> list[str]:
    """Wait for the process to end; return the lines of its stdout."""
    text, _ = running.process.communicate(timeout=LONG)
    assert running.process.returncode == 0, running.log.read_text()
    return text.decode().splitlines()


def results(*numbers: int) -> list[dict[str, Any]]:
    return [
        {
            "event_id": f"e{number}",
            "request_id": f"r{number}",
            "status": "SUCCESS",
            "prediction": {"class": "A", "confidence": 0.5},
            "processing_ms": 10 + number,
        }
        for number in numbers
    ]
