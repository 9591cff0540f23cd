"""Ctrl-C and SIGTERM: the first one ends in good order, a second Ctrl-C at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from infertool.cli import console


@contextmanager
def stopped_by_signals(stop: Callable[[], None], notice: str) -> Iterator[None]:
    """Print `notice`, if any, and call `stop` on the first SIGINT or SIGTERM; leave at once on a second SIGINT."""

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, second)
        if notice:
            console.err(notice)
        stop()

    def second(number: int, frame: FrameType | None) -> None:
        console.show_cursor()
        os._exit(console.EXIT_INTERRUPTED)

    before = {number: signal.signal(number, first) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is first:  # else the second Ctrl-C is still to be heard, up to the exit
            for number, handler in before.items():
                signal.signal(number, handler)
