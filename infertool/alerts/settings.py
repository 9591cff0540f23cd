"""Rules and sinks as the settings say."""

from __future__ import annotations

from infertool.alerts.rule import Rule, parse_rules
from infertool.alerts.shipped import SHIPPED
from infertool.alerts.sinks.port import Sink
from infertool.settings import Settings


def rules_of(settings: Settings, origin: str = "alerting.rules") -> list[Rule]:
    """Return all rules, also those that are off. Raises `SettingsError` or `ConditionError`, which name `origin`."""
    return parse_rules(settings.alerting.rules, SHIPPED, origin)


def configured_sinks(settings: Settings) -> list[str]:
    """Return the sinks that exist with these settings."""
    alerting = settings.alerting
    exist = {
        "phoenix": settings.publish.mode == "phoenix",
        "alertmanager": bool(alerting.alertmanager_url),
        "webhook": bool(alerting.webhook_url),
        "command": bool(alerting.command),
    }
    return [name for name, configured in exist.items() if configured]


def open_sinks(settings: Settings) -> list[Sink]:
    """Return the configured sinks but `phoenix`, which needs a connection. Raises `SettingsError` or `SinkError`."""
    from infertool.alerts.sinks.alertmanager import AlertmanagerSink  # noqa: PLC0415 - urllib3 takes time to load
    from infertool.alerts.sinks.command import CommandSink  # noqa: PLC0415
    from infertool.alerts.sinks.webhook import WebhookSink  # noqa: PLC0415

    alerting = settings.alerting
    sinks: list[Sink] = []
    if alerting.alertmanager_url:
        sinks.append(AlertmanagerSink(alerting.alertmanager_url, alerting.timeout_s))
    if alerting.webhook_url:
        sinks.append(WebhookSink(alerting.webhook_url, alerting.webhook_secret, alerting.timeout_s))
    if alerting.command:
        sinks.append(CommandSink(alerting.command, alerting.timeout_s))
    return sinks
