"""What `infertool call` prints: a reply, or the sums of many calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from infertool.codec import exact, for_json
from infertool.errors import (
    CallTimeoutError,
    ConnectionLostError,
    InfertoolError,
    RefusedError,
    RemoteFailureError,
    UnroutableError,
)
from infertool.rpc import Counts, Reply
from infertool.text import json_text, sanitize
from infertool.text.sanitize import clean

if TYPE_CHECKING:
    from infertool.cli.call.run import Outcome

_KINDS: Final[Mapping[type[Exception], str]] = {
    RemoteFailureError: "failed",
    CallTimeoutError: "timed out",
    UnroutableError: "unroutable",
    RefusedError: "refused",
    ConnectionLostError: "lost",
}
_SAID: Final = ("status", "model_version", "processing_ms", "event_id")
_TIMES: Final = ("p50", "p90", "p99", "p99_9", "max")
_DROPPED: Final = ("late", "duplicates", "unknown")
# Texts of failures that a summary shows.
_MOST_TEXTS: Final = 5


def kind(error: BaseException) -> str:
    """Return a word for how a call failed."""
    return next((word for kind, word in _KINDS.items() if isinstance(error, kind)), "error")


def text(error: BaseException) -> str:
    """Return what a failure says, the same for all of its kind."""
    if isinstance(error, RemoteFailureError):
        return f"{error.error_type}: {error.error}" if error.error_type else error.error
    return error.what if isinstance(error, InfertoolError) else f"{type(error).__name__}: {error}"


def body(reply: Reply) -> str:
    """Return a reply as one line of JSON. Raises `UnreadableReplyError`."""
    return json_text.dumps(_value(reply)).decode()


def _value(reply: Reply) -> Any:
    try:
        return for_json(reply.decoded(exact(reply.codec)))
    except RecursionError:
        raise reply.unreadable("it is nested too deep to be shown") from None


def answered(reply: Reply) -> str:
    """Return the line that tells where a reply comes from."""
    headers = reply.headers
    said = ", ".join(f"{name} {headers[name]}" for name in _SAID if name in headers)
    return f"{reply.queue} answered after {reply.elapsed_s * 1000:.1f} ms" + (f": {said}" if said else "")


def document(reply: Reply) -> dict[str, Any]:
    """Return a reply for a program. Raises `UnreadableReplyError`."""
    return {
        "outcome": "answered",
        "queue": reply.queue,
        "elapsed_ms": round(reply.elapsed_s * 1000, 3),
        "content_type": reply.properties.content_type,
        "headers": dict(reply.headers),
        "value": _value(reply),
    }


def failure_document(error: InfertoolError) -> dict[str, Any]:
    """Return the failure of a call for a program."""
    found: dict[str, Any] = {"outcome": kind(error).replace(" ", "_"), "error": error.what}
    if isinstance(error, RemoteFailureError):
        names = ("error", "error_type", "stage", "retryable", "event_id")
        found |= {name: getattr(error, name) for name in names}
    return found


def progress(outcome: Outcome, count: int, rate: float) -> str:
    """Return the line that is shown while calls are made. `rate` is that of the last seconds."""
    failed = outcome.calls - outcome.answered
    return f"{outcome.calls:,} of {count:,} calls, {failed:,} without a result, {rate:,.0f}/s"


def summary_document(outcome: Outcome, counts: Counts, elapsed_s: float) -> dict[str, Any]:
    """Return the sums of many calls for a program."""
    times = outcome.latencies.percentiles()
    latency = {f"{name}_ms": getattr(times, name) for name in ("mean", *_TIMES)}
    dropped = {name: value for name, value in asdict(counts).items() if name in _DROPPED}
    return {
        "calls": outcome.calls,
        "answered": outcome.answered,
        "failures": dict(outcome.kinds),
        "errors": dict(outcome.texts.most_common()),
        "elapsed_s": round(elapsed_s, 3),
        "rate": round(outcome.calls / elapsed_s, 3) if elapsed_s else None,
        "latency": {"count": times.count, **latency},
        "dropped_replies": dropped,
    }


def summary(document: Mapping[str, Any]) -> list[str]:
    """Return the sums of many calls as lines."""
    failures = "".join(f", {count:,} {word}" for word, count in document["failures"].items())
    latency = document["latency"]
    rows = [
        ("calls", f"{document['calls']:,}: {document['answered']:,} answered{failures}"),
        ("took", f"{document['elapsed_s']:.2f} s, {document['rate'] or 0:,.0f}/s"),
    ]
    if any(document["dropped_replies"].values()):
        dropped = ", ".join(f"{count:,} {name}" for name, count in document["dropped_replies"].items() if count)
        rows.append(("dropped", f"replies that nobody waited for: {dropped}"))
    lines = [f"{sanitize.right(label, 8)}  {clean(text)}" for label, text in rows]
    if latency["count"]:
        names = ("mean", *_TIMES)
        table = [("ms", "count", *(name.replace("_", ".") for name in names))]
        table.append(("reply", f"{latency['count']:,}", *(f"{latency[f'{name}_ms']:,.2f}" for name in names)))
        lines += ["", *sanitize.aligned(table, rights=[False, *[True] * (len(names) + 1)])]
    shown = list(document["errors"].items())[:_MOST_TEXTS]
    if shown:
        lines += ["", *(f"{count:,} x {clean(text)}" for text, count in shown)]
    return lines
