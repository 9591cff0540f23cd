"""Message brokers behind one port."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infertool.brokers import url

if TYPE_CHECKING:
    from infertool.brokers.port import Broker
    from infertool.net.connection_state import OnConnection
    from infertool.settings.tree import BrokerSettings


def open(  # noqa: A001  # brokers.open(...) reads as what it does
    settings: BrokerSettings, *, name: str = "infertool", on_connection: OnConnection | None = None
) -> Broker:
    """Return the broker that `settings.url` names, not yet connected.

    `name` is what the broker's console shows; `on_link` hears of every change of the connection, from a thread of the
    adapter. Raises SettingsError for a URL that cannot be used.
    """
    parsed = url.parse(settings.url)
    # Imported late: `infertool --help` must not pay for a protocol it does not use.
    from infertool.brokers.stomp.broker import StompBroker  # noqa: PLC0415

    return StompBroker(settings, parsed, name=name, on_connection=on_connection)
