"""Settings of the interpreter, in processes that serve requests."""

from __future__ import annotations

import gc
import sys
from typing import Final

# Time after which a thread that computes lets another one run, in seconds. An HTTP request passes five threads: with
# Python's 5 ms under load, half as many are done in a second.
_SWITCH_S: Final = 0.0005
# New objects before the youngest are searched for cycles. With Python's 700, the requests that wait are searched again
# and again, which takes a tenth of the processor.
_COLLECT_EVERY: Final = 20_000


def take_turns_sooner() -> None:
    """Have threads take turns sooner than Python has them."""
    sys.setswitchinterval(_SWITCH_S)


def collect_less_often() -> None:
    """Have cycles of objects collected less often, and what is there now never.

    For a process that has loaded all of its modules, and runs no code of users, whose cycles may be large.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY)
