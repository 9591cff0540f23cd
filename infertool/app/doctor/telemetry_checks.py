"""Checks of alert rules and of where alerts are told. Nothing is sent to a sink."""

from __future__ import annotations

import os
import shutil
import time
from functools import partial
from http import HTTPStatus
from typing import Final

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.util import parse_url

from infertool.alerts.settings import configured_sinks, rules_of
from infertool.app.doctor.check import Check
from infertool.app.doctor.hosts import Place, reach
from infertool.app.doctor.result import Finding, fail, ok, skip
from infertool.app.doctor.words import duration, number
from infertool.secret import mask_url
from infertool.settings import Settings
from infertool.settings.tree import AlertSettings
from infertool.text import json_text

_MARGIN_S: Final = 5.0
_PORTS: Final = {"http": 80, "https": 443}


def checks(settings: Settings, load: Check) -> list[Check]:
    """Return the checks."""
    alerting = settings.alerting
    runs = {
        "telemetry.rules": partial(_rules, settings),
        "telemetry.alertmanager": partial(_alertmanager, alerting),
        "telemetry.webhook": partial(_webhook, alerting),
        "telemetry.command": partial(_command, alerting),
    }
    limit_s = 2 * alerting.timeout_s + _MARGIN_S
    return [Check(name=name, run=run, needs=(load,), timeout_s=limit_s) for name, run in runs.items()]


def _rules(settings: Settings) -> Finding:
    if not settings.alerting.enabled:
        return skip("alerting.enabled is off")
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
    began = time.monotonic()
    try:
        parts = parse_url(url)
        headers = urllib3.make_headers(basic_auth=parts.auth, user_agent="infertool-doctor")
        address = f"{(parts._replace(auth=None, fragment=None).url or '').rstrip('/')}/api/v2/status"
        timeout = urllib3.Timeout(alerting.timeout_s)
        with urllib3.PoolManager(retries=False, timeout=timeout) as pool:
            response = pool.request("GET", address, headers=headers, redirect=False)
    except (HTTPError, LocationParseError) as fault:
        return fail(f"{mask_url(url)} does not answer: {_reason(fault)}", hint)
    took_s = time.monotonic() - began
    if response.status != HTTPStatus.OK:
        return fail(f"{mask_url(url)} answered {response.status}", hint, took_s, "seconds")
    try:
        version = json_text.loads(response.data)["versionInfo"]["version"]
    except (json_text.JsonError, KeyError, TypeError):
        return fail(f"what answers at {mask_url(url)} is no Alertmanager", hint, took_s, "seconds")
    return ok(f"Alertmanager {version} in {duration(took_s)}", took_s, "seconds")


def _reason(fault: Exception) -> str:
    cause = getattr(fault, "reason", None) or fault
    return str(getattr(cause, "__cause__", None) or cause).rpartition(": ")[2]


def _webhook(alerting: AlertSettings) -> Finding:
    if not alerting.webhook_url:
        return skip("alerting.webhook_url is not set")
    parts = parse_url(alerting.webhook_url)
    port = parts.port or _PORTS.get(parts.scheme or "", 80)
    place = Place(
        group="alerting",
        key="alerting.webhook_url",
        host=(parts.host or "").strip("[]"),
        port=port,
        timeout_s=alerting.timeout_s,
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
