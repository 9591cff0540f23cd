"""What the registry needs of the AMQP adapter, without its client library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from infertool.brokers.amqp.conventions import CAPABILITIES, CONVENTIONS
from infertool.brokers.registry import UrlPath

if TYPE_CHECKING:
    from infertool.brokers.port import Broker
    from infertool.brokers.registry import BrokerUrl
    from infertool.net.connection_state import OnConnection
    from infertool.settings.broker import BrokerSettings


__all__ = ["CAPABILITIES", "CONVENTIONS", "PATH", "PORTS", "URL_OPTIONS", "open_broker"]

PORTS: Final[Mapping[str, int | None]] = {"amqp": 5672, "amqps": 5671}
PATH: Final = UrlPath.VHOST
URL_OPTIONS: Final[frozenset[str] | None] = None


def open_broker(settings: BrokerSettings, url: BrokerUrl, *, name: str, on_connection: OnConnection | None) -> Broker:
    """Return a broker that is not yet connected. Raises SettingsError."""
    # Imported late: `infertool --help` must not pay for a protocol it does not use.
    from infertool.brokers.amqp.broker import AmqpBroker  # noqa: PLC0415

    return AmqpBroker(settings, url, name=name, on_connection=on_connection)
