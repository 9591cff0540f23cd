"""A broker in process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from infertool.brokers.memory.server import Server

_numbers = itertools.count(1)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(f"engine-{next(_numbers)}", login=("admin", "admin")) as server:
        yield server
