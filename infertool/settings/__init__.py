"""Settings: one frozen tree, and where each of its values came from."""

from infertool.settings.tree import (
    BrokerSettings,
    ConsumeSettings,
    DeadLetterSettings,
    ModelSettings,
    PhoenixSettings,
    PublishSettings,
    Settings,
    TelemetrySettings,
    WatchSettings,
)

__all__ = [
    "BrokerSettings",
    "ConsumeSettings",
    "DeadLetterSettings",
    "ModelSettings",
    "PhoenixSettings",
    "PublishSettings",
    "Settings",
    "TelemetrySettings",
    "WatchSettings",
]
