"""Names of the queues around a dead-letter queue."""

from __future__ import annotations


def staging(queue: str) -> str:
    """Return where a scan of `queue` keeps what it leaves out, until it puts that back."""
    return f"{queue}.scan"


def beside(queue: str) -> tuple[str, str]:
    """Return the queues that runs on `queue` need for themselves."""
    return staging(queue), lock(queue)


def lock(queue: str) -> str:
    """Return where the runs that work on `queue` meet."""
    return f"{queue}.lock"
