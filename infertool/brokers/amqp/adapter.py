"""What the registry needs of the AMQP adapter, without its client library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from infertool.brokers.amqp.conventions import CAPABILITIES, CONVENTIONS

if TYPE_CHECKING:
    from infertool.brokers.port import Broker
    from infertool.brokers.registry import BrokerUrl
    from infertool.net.connection_state import OnConnection
    from infertool.settings.tree import BrokerSettings


__all__ = ["CAPABILITIES", "CONVENTIONS", "PORTS", "open_broker"]

PORTS: Final[Mapping[str, int | None]] = {"amqp": 5672, "amqps": 5671}


def open_broker(settings: BrokerSettings, url: BrokerUrl, *, name: str, on_connection: OnConnection | None) -> Broker:
    """Return a broker that is not yet connected. Raises SettingsError."""
    # Imported late: `infertool --help` must not pay for a protocol it does not use.
    from infertool.brokers.amqp.broker import AmqpBroker  # noqa: PLC0415

    return AmqpBroker(settings, url, name=name, on_connection=on_connection)
