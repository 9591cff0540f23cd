"""Settings: one frozen tree, loaded from defaults, file, environment and flags, with each value's origin."""

from infertool.settings.tree import (
    AlertSettings,
    BrokerSettings,
    ConsumeSettings,
    ContractSettings,
    DeadLetterSettings,
    ModelSettings,
    PhoenixSettings,
    PublishSettings,
    Settings,
    TelemetrySettings,
    WatchSettings,
)

__all__ = [
    "AlertSettings",
    "BrokerSettings",
    "ConsumeSettings",
    "ContractSettings",
    "DeadLetterSettings",
    "ModelSettings",
    "PhoenixSettings",
    "PublishSettings",
    "Settings",
    "TelemetrySettings",
    "WatchSettings",
]
