"""Send times from a file (`--trace`): a time a line, as seconds or in ISO form, in order."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path

from infertool.errors import UsageError


def read_times(path: Path) -> list[float]:
    """Return the times in seconds after the first. Empty lines and `# comments` are skipped. Raises UsageError."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as fault:
        raise UsageError(f"--trace {path} cannot be read: {fault.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"--trace {path} is not text", advice="write a time a line, in seconds") from None
    times: list[float] = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        time = _time(text, f"{path} line {number}")
        if times and time < times[-1]:
            raise UsageError(f"--trace {path} line {number} goes back in time", advice="sort the file")
        times.append(time)
    if not times:
        raise UsageError(f"--trace {path} holds no times", advice="write a time a line, in seconds")
    return [time - times[0] for time in times]


def _time(text: str, where: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = _iso(text)
    if not math.isfinite(seconds):
        raise UsageError(
            f"--trace {where}: {text[:40]!r} is no time",
            advice="write seconds, or an ISO time like 2026-11-25T10:00:00Z",
        )
    return seconds


def _iso(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return math.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def parse_speed(text: str) -> float:
    """Return `2x` or `2` as a factor. Raises UsageError."""
    try:
        speed = float(text.strip().removesuffix("x"))
    except ValueError:
        speed = 0.0
    if not 0 < speed < math.inf:
        raise UsageError(f"--speed {text!r} is no speed", advice="write for example 2x or 0.5x")
    return speed
