"""What the headers of a request ask for."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from infertool.gateway.problem import Problem, Reason
from infertool.telemetry import trace_context

JSON: Final = "application/json"
MSGPACK: Final = "application/msgpack"
EVENTS: Final = "text/event-stream"

# Seconds that headers tell, beside 0.
LEAST_S: Final = 0.001
MOST_S: Final = 999_999_999

_KNOWN: Final = {
    name.encode(): name
    for name in (
        "accept", "authorization", "content-encoding", "content-length", "content-type", "idempotency-key",
        "infertool-class", "infertool-model", "infertool-webhook", "last-event-id", "prefer", "request-timeout",
        "traceparent", "x-api-key", "x-forwarded-for", "x-request-id",
    )
}  # fmt: skip
# Headers that are lists: several lines are one list.
_LISTS: Final = {"accept", "prefer", "x-forwarded-for"}
_VISIBLE: Final = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")
_PREFERENCE: Final = re.compile(r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*(?:=\s*(?:"([^"]*)"|([^\s;"]*)))?\s*(?:;.*)?')
_SECONDS: Final = re.compile(r"\d{1,9}(?:\.\d{1,20})?", re.ASCII)
LONGEST_KEY: Final = 255
_JSON_TYPES: Final = re.compile(r"application/(?:json|[\w.+-]+\+json)")
_MSGPACK_TYPES: Final = {MSGPACK, "application/x-msgpack", "application/vnd.msgpack"}


class Headers(dict[str, str]):
    """The headers that the gateway knows, by lower-case name."""

    def text(self, name: str, reason: Reason = Reason.INVALID_HEADER) -> str:
        """Return a value of up to 255 visible characters, "" where the header is missing. Raises `Problem`."""
        value = self.get(name)
        if value is None:
            return ""
        if not _VISIBLE.fullmatch(value):
            raise Problem(reason, f"{name} must have 1 to 255 visible ASCII characters")
        return value

    def seconds(self, name: str) -> float | None:
        """Return a number of seconds; None if there is none. Raises `Problem`."""
        value = self.get(name)
        if value is None:
            return None
        if not _SECONDS.fullmatch(value) or float(value) < LEAST_S:
            raise Problem(Reason.INVALID_HEADER, f"{name} must be a number of seconds from {LEAST_S}, such as 20")
        return float(value)

    def length(self) -> int | None:
        """Return the length of the body, None if it is not told beforehand."""
        value = self.get("content-length")
        return int(value) if value is not None and value.isdecimal() else None


def read(raw: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return the known headers. Raises `Problem` for one that is there twice and is no list."""
    found = Headers()
    for raw_name, raw_value in raw:
        name = _KNOWN.get(raw_name)
        if name is None:
            continue
        value = raw_value.decode("latin-1").strip()
        if name not in found:
            found[name] = value
        elif name in _LISTS:
            found[name] = f"{found[name]}, {value}"
        else:
            raise Problem(Reason.INVALID_HEADER, f"there is more than one header {name}")
    return found


@dataclass(frozen=True, slots=True)
class Preference:
    """How long the caller waits for a result. `applied` is what `Preference-Applied` says, "" without a preference."""

    wait_s: float
    applied: str = ""


_ASYNC: Final = Preference(0.0, "respond-async")


def preference(value: str | None, default_s: float, most_s: float) -> Preference:
    """Read `Prefer` (RFC 7240): `wait=N` and `respond-async`. What it does not know, or cannot read, it ignores."""
    if value is None:
        return Preference(default_s)
    if value == "respond-async":
        return _ASYNC
    asks_async, wait_s = False, None
    for part in value.split(","):
        found = _PREFERENCE.fullmatch(part)
        if found is None:
            continue
        name, text = found[1].lower(), found[2] or found[3] or ""
        if name == "respond-async":
            asks_async = True
        elif name == "wait" and wait_s is None and _SECONDS.fullmatch(text):
            wait_s = min(float(text), most_s)
    if wait_s is not None:
        return Preference(wait_s, f"respond-async, wait={wait_s:g}" if asks_async else f"wait={wait_s:g}")
    return _ASYNC if asks_async else Preference(default_s)


def prefers(value: str | None, name: str) -> bool:
    """Return True if `Prefer` has this preference."""
    parts = map(_PREFERENCE.fullmatch, (value or "").split(","))
    return any(found is not None and found[1].lower() == name for found in parts)


def content_type(value: str | None) -> str:
    """Return `JSON` or `MSGPACK`. Raises `Problem` for anything else."""
    if value == JSON:
        return JSON
    kind, _, parameters = (value or "").partition(";")
    kind = kind.strip().lower()
    charset = parameters.strip().lower().replace('"', "")
    if _JSON_TYPES.fullmatch(kind) and charset in {"", "charset=utf-8", "charset=utf8", "charset=us-ascii"}:
        return JSON
    if kind in _MSGPACK_TYPES:
        return MSGPACK
    what = f"{kind[:80]!r} is not understood" if kind else "there is no content type"
    raise Problem(
        Reason.CONTENT_TYPE,
        f"{what}: send {JSON} or {MSGPACK}",
        headers={"Accept-Post": f"{JSON}, {MSGPACK}"},
    )


def accepts(value: str | None, *kinds: str) -> bool:
    """Return True if `Accept` allows one of `kinds`."""
    if not value:
        return True
    ranges = _accepted(value)
    return any(
        quality > 0 for kind in kinds for range_, quality in ranges.items() if range_ in {kind, "*/*", _family(kind)}
    )


def wants_events(value: str | None) -> bool:
    """Return True if `Accept` asks for server-sent events rather than for a document."""
    if not value or EVENTS not in value.lower():
        return False
    ranges = _accepted(value)
    events = ranges.get(EVENTS, 0.0)
    return events > 0 and events >= max(ranges.get(JSON, 0.0), ranges.get("application/*", 0.0))


def _family(kind: str) -> str:
    return f"{kind.partition('/')[0]}/*"


def _accepted(value: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in value.split(","):
        kind, *parameters = (each.strip().lower() for each in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            name, _, number = parameter.partition("=")
            if name.strip() == "q":
                quality = _quality(number)
        if kind:
            found[kind] = quality
    return found


def _quality(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 1.0
    return value if math.isfinite(value) else 1.0


def idempotency_key(headers: Headers) -> str:
    """Return the idempotency key without its quotes, "" if there is none. Raises `Problem`."""
    value = headers.get("idempotency-key")
    if value is None:
        return ""
    key = value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    if len(key) > LONGEST_KEY or not _VISIBLE.fullmatch(key):
        raise Problem(Reason.IDEMPOTENCY_KEY_INVALID, "a key has 1 to 255 visible ASCII characters")
    return key


def traceparent(headers: Headers) -> str:
    """Return the caller's `traceparent`, "" if it is none: a trace must never fail a request."""
    found = trace_context.parse(headers.get("traceparent"))
    return str(found) if found else ""
