"""Checks values beyond their type: ranges of numbers, forms of addresses."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from infertool.errors import SettingsError, UsageError
from infertool.ipv6 import bracketed_url
from infertool.secret import mask_url
from infertool.settings.keys import Entry, types
from infertool.settings.tree import NumberOrAuto
from infertool.text.input import parse_capacity, parse_listen_address, parse_rate
from infertool.text.sanitize import printable

_FROM_ZERO = {
    "broker.heartbeat_s",
    "broker.reconnect_base_s",
    "broker.reconnect_max_s",
    "consume.concurrency",
    "consume.window",
    "consume.workers",
    "consume.max_tasks_per_worker",
    "consume.worker_memory_bytes",
    "consume.batch_wait_s",
    "model.device_id",
    "consume.target_latency_s",
    "consume.retry_base_s",
    "consume.retry_max_s",
    "consume.stop_deadline_s",
    "phoenix.window",
    "gateway.drain_s",
}
_NOT_EMPTY = {
    "model.spec",
    "phoenix.topic",
    "phoenix.result_topic",
    "phoenix.alert_topic",
}
_URLS = {"broker.url", "phoenix.url"}
_HTTP_URLS = {"alerting.alertmanager_url", "alerting.webhook_url", "gateway.jwks_url"}

_HOST = re.compile(r"(?:\[[^\]]+\]|[^\[\]:]+)(?::0*(\d{1,5}))?", re.ASCII)
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9/:._-]*")
_RANGE_OF_DEVICES = re.compile(r"(?:^|,)\s*\d+\s*(?:-|\.\.|:)\s*\d+\s*(?:,|$)")
_HIGHEST_PORT = 65_535
# Waits of threads take 9e9 s at most, counts 64 bits.
_MOST_S = 1e9
_MOST = 2**63 - 1
_PAGE = re.compile(r"https?://[^/?#\s]+[/?#][!-~]*")


def check(entries: Mapping[str, Entry]) -> None:
    """Raise `SettingsError` for the first invalid value."""
    for key, entry in entries.items():
        if reason := _reason(key, entry.value):
            raise SettingsError(f"{entry.origin}: {key} {reason}", key=key, origin=entry.origin)


def _reason(key: str, value: Any) -> str:
    if isinstance(value, str) and "\0" in value:
        return "has a NUL in it"
    if isinstance(value, str) and not _is_path(key) and printable(value) != value:
        return "is not UTF-8"
    if key in _TEXTS:
        return _TEXTS[key](value)
    if isinstance(value, int) and types()[key] in {int, NumberOrAuto}:
        return _whole(value, 0 if key in _FROM_ZERO else 1)
    if types()[key] is float:
        return _seconds(value, zero=key in _FROM_ZERO)
    return ""


def _is_path(key: str) -> bool:
    """Return True for what names files, which may have any bytes."""
    return key.endswith(("_file", "_dir")) or key == "model.spec"


def _whole(value: int, least: int) -> str:
    if value > _MOST:
        return f"is more than {_MOST}"
    return "" if value >= least else f"is {max(value, -_MOST)}, but must be {least} or more"


def _seconds(value: float, *, zero: bool) -> str:
    if value > _MOST_S:
        return f"is {value:g}, but must be at most {_MOST_S:g} seconds"
    if value > 0 or (zero and value == 0):
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
    if meant := bracketed_url(url):
        return f"names an IPv6 address, which needs brackets: {meant}"
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


def _rate(text: str) -> str:
    try:
        parse_rate(text or "1/s")
    except UsageError as error:
        return f"cannot be used: {error}"
    return ""


def _devices(text: str) -> str:
    if _RANGE_OF_DEVICES.search(text):
        return f"is {text!r}: write each device, such as 0,1,2,3"
    if all(_DEVICE.fullmatch(name.strip()) for name in text.split(",")) or not text:
        return ""
    return f"is {text!r}, but must be numbers or names of GPUs with commas, such as 0,1"


_TEXTS: dict[str, Callable[[str], str]] = {
    **dict.fromkeys(_URLS, _url),
    **dict.fromkeys(_NOT_EMPTY, _not_empty),
    **dict.fromkeys(_HTTP_URLS, _http_url),
    "consume.devices": _devices,
    "model.cache": _capacity,
    "gateway.cache": _capacity,
    "telemetry.trace_url": _trace_url,
    "telemetry.metrics": _listening,
    "gateway.listen": _listening,
    "serve.listen": _listening,
    "gateway.rate": _rate,
    "gateway.failed_credentials": _rate,
}
