"""Checks values beyond their type: ranges of numbers, forms of addresses."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from infertool.errors import SettingsError, UsageError
from infertool.net.identify import bracketed
from infertool.secret import mask_url
from infertool.settings.keys import Entry, types
from infertool.settings.tree import Concurrency
from infertool.text.input import parse_capacity, parse_listen_address

_FROM_ZERO = {
    "broker.heartbeat_s",
    "broker.reconnect_base_s",
    "broker.reconnect_max_s",
    "consume.window",
    "consume.workers",
    "consume.max_tasks_per_worker",
    "consume.worker_memory_bytes",
    "consume.batch_wait_s",
    "consume.target_latency_s",
    "consume.retry_base_s",
    "consume.retry_max_s",
    "consume.stop_deadline_s",
}
_NOT_EMPTY = {
    "model.spec",
    "phoenix.topic",
    "phoenix.result_topic",
    "phoenix.alert_topic",
}
_URLS = {"broker.url", "phoenix.url"}
_HTTP_URLS = {"alerting.alertmanager_url", "alerting.webhook_url"}

_HOST = re.compile(r"(?:\[[^\]]+\]|[^\[\]:]+)(?::(\d+))?")
_HIGHEST_PORT = 65_535
_PAGE = re.compile(r"https?://[^/?#\s]+[/?#][!-~]*")


def check(entries: Mapping[str, Entry]) -> None:
    """Raise `SettingsError` for the first invalid value."""
    for key, entry in entries.items():
        if reason := _reason(key, entry.value):
            raise SettingsError(f"{entry.origin}: {key} {reason}", key=key, origin=entry.origin)


def _reason(key: str, value: Any) -> str:
    if key in _TEXTS:
        return _TEXTS[key](value)
    if isinstance(value, int) and types()[key] in {int, Concurrency}:
        return _whole(value, 0 if key in _FROM_ZERO else 1)
    if types()[key] is float:
        return _seconds(value, zero=key in _FROM_ZERO)
    return ""


def _whole(value: int, least: int) -> str:
    return "" if value >= least else f"is {value}, but must be {least} or more"


def _seconds(value: float, *, zero: bool) -> str:
    if math.isfinite(value) and (value > 0 or (zero and value == 0)):
        return ""
    return f"is {value:g}, but must be {'0 or more' if zero else 'more than 0'} seconds"


def _not_empty(text: str) -> str:
    return "" if text else "is empty"


def _capacity(text: str) -> str:
    try:
        parse_capacity(text or "1:1s")
    except UsageError as error:
        return f"cannot be used: {error}"
    return ""


def _url(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not (scheme and separator):
        return f"is {mask_url(url)!r}, but must be scheme://host:port"
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    hosts = [host.rpartition("@")[2] for host in authority.split(",")]
    if all(map(_is_address, hosts)):
        return ""
    if meant := next(filter(None, map(bracketed, hosts)), ""):
        return f"names an IPv6 address, which needs brackets: {scheme}://{meant}"
    return (
        f"is {mask_url(url)!r}, but must be scheme://host:port with a port from 1 to {_HIGHEST_PORT}"
        " (percent-encode special characters of a user or password)"
    )


def _http_url(url: str) -> str:
    if not url or url.startswith(("http://", "https://")):
        return _url(url) if url else ""
    return f"is {mask_url(url)!r}, but must be http://host:port or https://host:port"


def _is_address(address: str) -> bool:
    match = _HOST.fullmatch(address)
    return match is not None and (match[1] is None or 1 <= int(match[1]) <= _HIGHEST_PORT)


def _trace_url(url: str) -> str:
    if not url:
        return ""
    if url.count("{trace_id}") != 1:
        return "must have {trace_id} once, in the place of a trace's id"
    filled = url.replace("{trace_id}", "0" * 32)
    if not _PAGE.fullmatch(filled):
        return f"is {mask_url(url)!r}, but must be http:// or https://, a host, and a path to {{trace_id}}"
    return _url(filled)


def _listening(text: str) -> str:
    try:
        parse_listen_address(text or "0")
    except UsageError as error:
        return f"cannot be used: {error}"
    return ""


_TEXTS: dict[str, Callable[[str], str]] = {
    **dict.fromkeys(_URLS, _url),
    **dict.fromkeys(_NOT_EMPTY, _not_empty),
    **dict.fromkeys(_HTTP_URLS, _http_url),
    "model.cache": _capacity,
    "telemetry.trace_url": _trace_url,
    "telemetry.metrics": _listening,
}
