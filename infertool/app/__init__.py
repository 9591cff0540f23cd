"""Builds running consumers from settings: `ConsumerApp` in this process, `Supervisor` in several.

    from infertool.app import BrokerSettings, ConsumerApp, Settings

    with ConsumerApp(Settings(broker=BrokerSettings(url="stomp://127.0.0.1:61613"))) as consumer:
        consumer.start()
        ...
        consumer.stop()

Nothing here prints, handles signals, or changes standard streams, hooks or other state of the process.
"""

from infertool.app.consumer import ConsumerApp, check
from infertool.app.replicas.supervisor import Supervisor
from infertool.consumer.consumer import Until
from infertool.settings import (
    BrokerSettings,
    ConsumeSettings,
    ContractSettings,
    DeadLetterSettings,
    ModelSettings,
    PhoenixSettings,
    PublishSettings,
    Settings,
)
from infertool.telemetry.stats import Snapshot

__all__ = [
    "BrokerSettings",
    "ConsumeSettings",
    "ConsumerApp",
    "ContractSettings",
    "DeadLetterSettings",
    "ModelSettings",
    "PhoenixSettings",
    "PublishSettings",
    "Settings",
    "Snapshot",
    "Supervisor",
    "Until",
    "check",
]
