"""Names of the queues around a dead-letter queue."""

from __future__ import annotations

from infertool.errors import UsageError

_QUEUE = "/queue/"


def destination(text: str, *, option: str = "QUEUE") -> str:
    """Return the queue that was typed as `DLQ.x` or `/queue/DLQ.x`. Raises `UsageError`."""
    name = text.strip()
    if "/" not in name:
        name = _QUEUE + name
    if not name.startswith(_QUEUE) or name == _QUEUE or "/" in name.removeprefix(_QUEUE):
        raise UsageError(f"{option} {text!r} is no queue", advice="write for example DLQ.orders or /queue/DLQ.orders")
    if any(sign in name for sign in "*>,?\r\n\0"):
        raise UsageError(f"{option} {text!r} names many queues or none", advice="name one queue")
    return name


def staging(queue: str) -> str:
    """Return where a scan of `queue` keeps what it leaves out, until it puts that back."""
    return f"{queue}.scan"


def lock(queue: str) -> str:
    """Return where the runs that work on `queue` meet."""
    return f"{queue}.lock"
