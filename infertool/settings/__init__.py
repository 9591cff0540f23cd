"""Settings: one frozen tree, loaded from defaults, file, environment and flags, with each value's origin."""

from infertool.settings.broker import BrokerSettings
from infertool.settings.serving import ServeSettings
from infertool.settings.tree import (
    AlertSettings,
    ConsumeSettings,
    ContractSettings,
    DeadLetterSettings,
    GatewaySettings,
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
    "GatewaySettings",
    "ModelSettings",
    "PhoenixSettings",
    "PublishSettings",
    "ServeSettings",
    "Settings",
    "TelemetrySettings",
    "WatchSettings",
]
