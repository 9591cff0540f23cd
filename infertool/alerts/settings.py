"""Rules and sinks as the settings say."""

from __future__ import annotations

from infertool.alerts.rule import Rule, parse_rules
from infertool.alerts.shipped import SHIPPED
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
