"""Message brokers behind one port."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infertool.brokers import registry
from infertool.brokers import registry as url

if TYPE_CHECKING:
    from infertool.brokers.port import Broker, Conventions
    from infertool.brokers.registry import Adapter
    from infertool.net.connection_state import OnConnection
    from infertool.settings.tree import BrokerSettings


def open(  # noqa: A001  # brokers.open(...) reads as what it does
    settings: BrokerSettings, *, name: str = "infertool", on_connection: OnConnection | None = None
) -> Broker:
    """Return the broker that `settings.url` names, not yet connected.

    `name` is what the broker's console shows; `on_connection` is called with every change of the connection, from a
    thread of the adapter. Raises SettingsError for a URL that cannot be used.
    """
    parsed = url.parse(settings.url)
    return registry.adapter(parsed.scheme).open_broker(settings, parsed, name=name, on_connection=on_connection)


def adapter(broker_url: str) -> Adapter:
    """Return the adapter for a URL: what is known of a broker without a connection. Raises SettingsError."""
    return registry.adapter(url.scheme(broker_url))


def conventions(broker_url: str) -> Conventions:
    """Return how the broker that a URL names spells queues, and which headers it carries. Raises SettingsError."""
    return adapter(broker_url).CONVENTIONS
