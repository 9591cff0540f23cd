"""All threads of a process with a client of librdkafka take memory from two arenas of malloc."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Threads that hold memory at the same time; then malloc tells of its arenas (malloc_info(3)).
PROGRAM = """
import ctypes, sys, threading
from infertool.brokers.kafka import arenas

if "limit" in sys.argv:
    arenas.limit()
together = threading.Barrier(4)

def take():
    held = bytearray(100_000), [bytes(2000 + number) for number in range(100)]
    together.wait(60)

threads = [threading.Thread(target=take) for _ in range(4)]
for each in threads:
    each.start()
for each in threads:
    each.join()
libc = ctypes.CDLL(None)
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


@pytest.mark.parametrize(
    ("arguments", "given", "most"),
    [(["limit"], {}, 2), ([], {}, 5), (["limit"], {"MALLOC_ARENA_MAX": "4"}, 4)],
    ids=["limited", "not limited", "the user's own limit"],
)
def test_four_threads_and_the_main_one(arguments: list[str], given: dict[str, str], most: int) -> None:
    env = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"} | given
    told = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], env=env, capture_output=True, check=True).stdout
    assert told.count(b"<heap nr=") == most, told
