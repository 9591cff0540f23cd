"""A terminal as people have one: tmux, whose screen can be read."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.support.install import apt


class Tmux:
    """Runs one program in a tmux server of its own."""

    def __init__(
        self, command: Sequence[str], *, folder: Path, width: int = 100, height: int = 30, env: Mapping[str, str]
    ) -> None:
        apt("tmux")
        self._socket = f"infertool-{uuid.uuid4().hex[:8]}"
        # The shell shows the program's exit code once it has ended.
        line = f"{shlex.join(command)}; echo exit code $?; exec cat"
        self._tmux(
            "-f", os.devnull, "new-session", "-d", "-x", str(width), "-y", str(height), "-c", str(folder), line, env=env
        )

    def screen(self) -> str:
        """Return what the screen shows."""
        return self._tmux("capture-pane", "-p")

    def press(self, *keys: str) -> None:
        """Press keys, by tmux's names."""
        self._tmux("send-keys", *keys)

    def resize(self, width: int, height: int) -> None:
        """Give the terminal another size, and wait until the program could know: tmux may take a while."""
        self._tmux("resize-window", "-x", str(width), "-y", str(height))
        tty = self._tmux("display-message", "-p", "#{pane_tty}").strip()
        deadline = time.monotonic() + 240
        while self._size(tty) != f"{height} {width}":
            assert time.monotonic() < deadline, f"tmux did not resize {tty}"
            time.sleep(0.05)

    def wait(self, *texts: str, timeout_s: float = 240) -> str:
        """Wait until the screen shows all of `texts`; return it."""
        deadline = time.monotonic() + timeout_s
        while True:
            screen = self.screen()
            if all(text in screen for text in texts):
                return screen
            assert time.monotonic() < deadline, f"{texts} did not come to the screen:\n{screen}"
            time.sleep(0.1)

    def close(self) -> None:
        """End the program and its terminal."""
        self._tmux("kill-server")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @staticmethod
    def _size(tty: str) -> str:
        return subprocess.run(["stty", "-F", tty, "size"], check=True, capture_output=True, text=True).stdout.strip()

    def _tmux(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        command = ["tmux", "-L", self._socket, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout
