"""`infertool alerts list` and `silence`: the rules of a running consumer, over its endpoint."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Any, Final

import msgspec
import urllib3
from urllib3.exceptions import HTTPError

from infertool.cli.common import console
from infertool.errors import RefusedError, UnreachableError
from infertool.net.http_faults import hint, reason, wants_tls
from infertool.net.http_pool import Pools
from infertool.secret import mask_url
from infertool.telemetry.stats_document import AlertStats
from infertool.text import json_text
from infertool.text.input import parse_duration, parse_stats_url
from infertool.text.sanitize import aligned, clean, printable

_TIMEOUT_S: Final = 10.0
_STATES: Final = ("firing", "pending", "nodata", "resolved", "inactive")


def list_rules(url: str, *, as_json: bool) -> None:
    """Print the rules of the consumer at `url`, those that fire first."""
    found = _ask("GET", url, "/stats").get("alerts")
    try:
        msgspec.convert(found, list[AlertStats])
    except msgspec.ValidationError:
        raise _no_consumer(mask_url(url)) from None
    rules: list[dict[str, Any]] = sorted(found or (), key=lambda rule: _rank(rule["state"]))
    if as_json:
        console.emit_json(rules)
        return
    if not rules:
        console.err(f"{mask_url(url)} evaluates no rules: alerting.enabled is false there")
        return
    now = time.time()
    rows = [["rule", "state", "for", "severity", "value", "summary"]]
    rows += [[clean(cell) for cell in _row(rule, now)] for rule in rules]
    console.out(*aligned(rows))


def silence(url: str, name: str, duration: str, *, as_json: bool) -> None:
    """Let the rule `name` of the consumer at `url` tell nobody for `duration`."""
    seconds = parse_duration(duration)
    answer = _ask("POST", url, "/alerts/silence", {"rule": printable(name), "seconds": seconds})
    if as_json:
        console.emit_json(answer)
    else:
        console.out(f"{name} tells nobody for {duration}" if seconds else f"{name} is not silenced any more")


def _rank(state: str) -> int:
    return _STATES.index(state) if state in _STATES else len(_STATES)


def _row(rule: dict[str, Any], now: float) -> list[str]:
    value, since = rule.get("value"), rule.get("since")
    return [
        rule["rule"],
        rule["state"],
        "" if since is None else _age(max(0.0, now - since)),
        rule["severity"],
        "" if value is None else f"{value:.6g}",
        rule["summary"] if rule["state"] in {"firing", "pending"} else "",
    ]


def _age(seconds: float) -> str:
    for unit, name in ((3600, "h"), (60, "m")):
        if seconds >= unit:
            return f"{seconds / unit:.1f}{name}"
    return f"{seconds:.0f}s"


def _ask(method: str, url: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the JSON object of the answer. Raises `UsageError`, `UnreachableError` or `RefusedError`."""
    base = parse_stats_url(url)
    shown = mask_url(base)
    try:
        with Pools(timeout=urllib3.Timeout(_TIMEOUT_S), retries=False) as pools:
            response = pools.request(method, base + path, json=body, redirect=False)
    except HTTPError as error:
        what, advice = hint(error, shown, "--stats-url") or (
            f"{shown} does not answer: {reason(error)}", "does the consumer run with --metrics?",
        )  # fmt: skip
        raise UnreachableError(what, address=shown, advice=advice) from None
    if response.status == HTTPStatus.BAD_REQUEST and (tls := wants_tls(shown, "--stats-url")):
        raise UnreachableError(tls[0], address=shown, advice=tls[1])
    try:
        answer = json_text.loads(response.data)
    except json_text.JsonError:
        answer = None
    if response.status == HTTPStatus.OK:
        if not isinstance(answer, dict):
            raise _no_consumer(shown)
        return answer
    told = answer.get("error") if isinstance(answer, dict) else None
    advice = "silence a rule on the machine of the consumer" if response.status == HTTPStatus.FORBIDDEN else ""
    raise RefusedError(f"{shown} answered {response.status}: {told or response.reason}", address=shown, advice=advice)


def _no_consumer(shown: str) -> UnreachableError:
    return UnreachableError(
        f"what answers at {shown} is no consumer of infertool", address=shown,
        advice="give the address of telemetry.metrics of a consumer that runs",
    )  # fmt: skip
