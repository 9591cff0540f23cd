"""Every test here must leave no thread of the client behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 90
    while (left := _client_threads()) and time.monotonic() < deadline:
        left[0].join(1)
    assert not _client_threads()


def _client_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("phoenix-")]
