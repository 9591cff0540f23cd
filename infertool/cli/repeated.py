"""Something done again and again beside the work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(action: Callable[[], None], interval_s: float) -> Iterator[None]:
    """Call `action` from a thread of its own, every `interval_s` seconds, while the block runs."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(interval_s):
            action()

    thread = threading.Thread(target=run, name="repeated", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
