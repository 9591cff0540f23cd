"""What `infertool submit` tells of its progress and its end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from infertool.cli.submit.run import Sums

# What a line may end with: a result, or without --follow its acceptance.
GOOD: Final = ("succeeded", "queued", "started")
_WORDS: Final = {
    "succeeded": "succeeded", "queued": "accepted", "started": "accepted", "failed": "failed", "expired": "expired",
    "cancelled": "cancelled", "refused": "refused", "invalid": "left out",
    "unknown": "unknown",
}  # fmt: skip


def progress(sums: Sums, waiting: int) -> str:
    """Return the line that is shown meanwhile."""
    wait = f"; {waiting:,} wait as the gateway told" if waiting else ""
    return f"{sums.lines:,} lines{_parts(sums)}, {_rate(sums):,.0f}/s{wait}"


def silence(silent_s: float, waiting: int, refusal: str) -> str:
    """Return the line that is shown where no line has ended for long."""
    return f"no line has ended for {silent_s:.0f} s; {waiting:,} wait as the gateway told: {refusal}"


def summary(sums: Sums, waits: int) -> str:
    """Return the line at the end."""
    known = f"; {sums.known:,} of them the gateway had already" if sums.known else ""
    waited = f"; waited {waits:,} times as the gateway told" if waits else ""
    took = f"{time.monotonic() - sums.began:.1f} s, {_rate(sums):,.0f}/s"
    return f"{sums.lines:,} lines{_parts(sums)}{known}{waited}; {took}"


def _parts(sums: Sums) -> str:
    found: dict[str, int] = {}
    for name, count in sums.statuses.items():
        word = _WORDS.get(name, name)
        found[word] = found.get(word, 0) + count
    return f": {', '.join(f'{count:,} {word}' for word, count in found.items())}" if found else ""


def _rate(sums: Sums) -> float:
    return sums.lines / max(time.monotonic() - sums.began, 1e-6)
