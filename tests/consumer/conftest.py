"""A broker in process, and services on it that answer requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infertool.brokers.memory.server import Server
from tests.consumer.service import Serve, Service, hurry, new_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    hurry(monkeypatch)
    with new_server() as server:
        yield server


@pytest.fixture
def serve(server: Server, tmp_path: Path) -> Iterator[Serve]:
    running: list[Service] = []

    def serve(model: Callable[[Any], Any], **options: Any) -> Service:
        running.append(Service(server, tmp_path / f"{len(running)}", model, **options))
        return running[-1]

    yield serve
    for each in running:
        each.end()
