"""Checks of alert rules and of where alerts are told. Nothing is sent to a sink."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Mapping
from functools import partial
from typing import Final

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from infertool.alerts.settings import configured_sinks, rules_of
from infertool.app.doctor.check import Check
from infertool.app.doctor.consumer_checks import stats_at
from infertool.app.doctor.hosts import Place, reach
from infertool.app.doctor.http_get import get
from infertool.app.doctor.result import Finding, fail, ok, skip
from infertool.app.doctor.words import duration, number
from infertool.errors import UnreachableError, UsageError
from infertool.ipv6 import bracketed_url
from infertool.net.address import host_and_port
from infertool.secret import mask_url
from infertool.settings import Settings
from infertool.settings.tree import AlertSettings
from infertool.text import json_text
from infertool.text.input import parse_listen_address

_MARGIN_S: Final = 5.0
# Where spans go, and what the SDK takes where nothing is said.
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_ENDPOINT: Final = "http://localhost:4318"
_PORTS: Final = {"http": 80, "https": 443}


def checks(settings: Settings, environ: Mapping[str, str], load: Check) -> list[Check]:
    """Return the checks."""
    alerting = settings.alerting
    runs = {
        "telemetry.metrics": partial(_metrics, settings),
        "telemetry.rules": partial(_rules, settings),
        "telemetry.traces": partial(_traces, settings, environ),
        "telemetry.alertmanager": partial(_alertmanager, alerting),
        "telemetry.webhook": partial(_webhook, alerting),
        "telemetry.command": partial(_command, alerting),
    }
    limit_s = 2 * alerting.timeout_s + _MARGIN_S
    return [Check(name=name, run=run, needs=(load,), timeout_s=limit_s) for name, run in runs.items()]


def _metrics(settings: Settings) -> Finding:
    if not settings.telemetry.metrics:
        return skip("telemetry.metrics is not set")
    try:
        host, port = parse_listen_address(settings.telemetry.metrics)
    except UsageError as fault:
        return fail(f"telemetry.metrics {fault.what}", fault.advice)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as listener:
            # As a server does: what is left of closed connections is no hindrance.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(1)
    except OSError as fault:
        if fault.errno == errno.EADDRINUSE:
            return _occupied(host, port)
        return fail(f"{host}:{port}: {fault.strerror or fault}", "choose another address in telemetry.metrics")
    return ok(f"{host}:{port} is free" if port else f"any free port of {host}")


def _occupied(host: str, port: int) -> Finding:
    address = host_and_port(host, port)
    try:
        _, document = stats_at(f"http://{address}")
    except UnreachableError:
        hint = "choose another port in telemetry.metrics, 0 for any free one, or end the program that has it"
        return fail(f"another program listens at {address}", hint)
    return ok(f"{address} is that of {document.consumer}, which runs")


def _rules(settings: Settings) -> Finding:
    if not settings.alerting.enabled:
        return skip("alerting.enabled is off")
    if not settings.has_alerts:
        return skip("no rule is evaluated: that needs telemetry.metrics, a rule, or a sink")
    rules = rules_of(settings)
    sinks = configured_sinks(settings)
    wrong = [f"{rule.name} names {sink}" for rule in rules for sink in rule.sinks if sink not in sinks]
    on = sum(rule.enabled for rule in rules)
    value = f"{on} of {number(len(rules), 'rule')} are on, told to {', '.join(sinks) or 'nobody'}"
    if wrong:
        return fail(
            f"{value}; {'; '.join(wrong)}, which is not configured", "set the sink up in [alerting]", on, "rules"
        )
    return ok(value, on, "rules")


def _alertmanager(alerting: AlertSettings) -> Finding:
    url = alerting.alertmanager_url
    if not url:
        return skip("alerting.alertmanager_url is not set")
    hint = "check alerting.alertmanager_url, and that the Alertmanager runs"
    answer = get(url, "/api/v2/status", alerting.timeout_s, setting="alerting.alertmanager_url", advice=hint)
    try:
        version = json_text.loads(answer.body)["versionInfo"]["version"]
    except (json_text.JsonError, KeyError, TypeError):
        return fail(f"what answers at {answer.address} is no Alertmanager", hint, answer.took_s, "seconds")
    return ok(f"Alertmanager {version} in {duration(answer.took_s)}", answer.took_s, "seconds")


def _webhook(alerting: AlertSettings) -> Finding:
    if not alerting.webhook_url:
        return skip("alerting.webhook_url is not set")
    return _reach("alerting.webhook_url", alerting.webhook_url, alerting.timeout_s)


def _traces(settings: Settings, environ: Mapping[str, str]) -> Finding:
    if settings.telemetry.traces != "otlp":
        return skip("telemetry.traces is off")
    name, url = next(((name, environ[name]) for name in _ENDPOINTS if environ.get(name)), ("its default", _ENDPOINT))
    return _reach(f"OTEL_EXPORTER_OTLP_ENDPOINT ({name}: {mask_url(url)})", url, settings.alerting.timeout_s)


def _reach(key: str, url: str, timeout_s: float) -> Finding:
    """Connect to the host of a URL, and send nothing."""
    if meant := bracketed_url(url):
        return fail("it names an IPv6 address, which needs brackets", f"write {meant} in {key}")
    try:
        parts = parse_url(url)
    except LocationParseError:
        return fail(f"{mask_url(url)} is no address", f"check {key}")
    place = Place(
        group=key.partition(".")[0],
        key=key,
        host=(parts.host or "").strip("[]"),
        port=parts.port or _PORTS.get(parts.scheme or "", 80),
        timeout_s=timeout_s,
        context=None,
        shows_certificate=False,
    )
    return reach(place)


def _command(alerting: AlertSettings) -> Finding:
    if not alerting.command:
        return skip("alerting.command is not set")
    program = alerting.command[0]
    found = shutil.which(program, mode=os.F_OK | os.X_OK)
    if found is None:
        return fail(f"there is no program {program}", "check alerting.command, its rights, and PATH")
    return ok(found)
