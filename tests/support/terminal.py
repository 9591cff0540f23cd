"""A terminal for programs that draw: a pseudo-terminal that is read all the time, and typed into."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
import time
from typing import Any, Self


class Terminal:
    """Runs `command` on a pseudo-terminal of `width` x `height`, and keeps what it writes."""

    def __init__(self, command: list[str], *, width: int = 120, height: int = 40, env: dict[str, str]) -> None:
        self._main, worker = pty.openpty()
        fcntl.ioctl(worker, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.process = subprocess.Popen(
            command, stdin=worker, stdout=worker, stderr=worker, env=env, start_new_session=True
        )
        os.close(worker)
        self._written = bytearray()
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def written(self) -> bytes:
        """All it wrote so far."""
        with self._changed:
            return bytes(self._written)

    def type(self, keys: str) -> int:
        """Type `keys`; return how much had been written before."""
        with self._changed:
            before = len(self._written)
        os.write(self._main, keys.encode())
        return before

    def modes(self) -> list[Any]:
        """Return the terminal's modes: `termios.tcgetattr`."""
        return termios.tcgetattr(self._main)

    def wait(self, text: bytes, *, after: int = 0, timeout_s: float = 240) -> float:
        """Wait until `text` is written past position `after`; return the time it was seen, monotonic."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._written.find(text, after) >= 0, timeout_s), text
            return time.perf_counter()

    def finish(self, timeout_s: float = 120) -> bytes:
        """Wait for the end of the program; return all it wrote. What it wrote last is read after its end."""
        self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        return self.written

    def close(self) -> None:
        """End the program."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(120)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._main, 1 << 16)
            except OSError:
                return
            with self._changed:
                self._written += data
                self._changed.notify_all()
