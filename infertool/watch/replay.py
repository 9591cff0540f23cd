"""Replaying one dead letter: `infertool replay-dlq`, run as its own process, so that it does what it says it does."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence

from infertool.printable import clean

# A replay of one letter out of a deep queue has to look at all of it.
_TIMEOUT_S = 300.0


def command(event_id: str, options: Sequence[str]) -> list[str]:
    """Return the arguments of `infertool` that replay the letter of an event. `options` are the global ones."""
    return [*options, "replay-dlq", f"--id={event_id}", "--yes"]


def shown(arguments: Sequence[str]) -> str:
    """Return the command as it could be typed."""
    return clean(shlex.join(["infertool", *arguments]))


def run(arguments: Sequence[str]) -> tuple[bool, str]:
    """Run the command to its end; return whether it did its work, and its last line."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "infertool", *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the id
        return False, clean(f"it could not be run: {error}")
    except subprocess.TimeoutExpired:
        return False, f"it did not end within {_TIMEOUT_S:.0f} s"
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode == 0, clean(said[-1] if said else f"exit code {done.returncode}")
