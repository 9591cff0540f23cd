"""Message brokers behind one port."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from infertool.brokers import registry, weighted_queues
from infertool.errors import SettingsError, UsageError

if TYPE_CHECKING:
    from infertool.brokers.port import Broker, Conventions
    from infertool.brokers.registry import Adapter
    from infertool.net.connection_state import OnConnection
    from infertool.settings.broker import BrokerSettings
    from infertool.settings.tree import Settings


def open(  # noqa: A001  # brokers.open(...) reads as what it does
    settings: BrokerSettings, *, name: str = "infertool", on_connection: OnConnection | None = None
) -> Broker:
    """Return the broker that `settings.url` names, not yet connected.

    `name` is what the broker's console shows; `on_connection` is called with every change of the connection, from a
    thread of the adapter. Raises SettingsError for a URL that cannot be used.
    """
    parsed = registry.parse(settings.url)
    return registry.adapter(parsed.scheme).open_broker(settings, parsed, name=name, on_connection=on_connection)


def adapter(broker_url: str) -> Adapter:
    """Return the adapter for a URL: what is known of a broker without a connection. Raises SettingsError."""
    return registry.adapter(registry.scheme(broker_url))


def conventions(broker_url: str) -> Conventions:
    """Return how the broker that a URL names spells queues, and which headers it carries. Raises SettingsError."""
    return adapter(broker_url).CONVENTIONS


def with_full_names(settings: Settings) -> Settings:
    """Return the settings with full queue names, as the broker spells them.

    A queue that the URL names takes the place of the default one; its dead letters then go to `QUEUE.dlq`. Raises
    `SettingsError`, whose `key` is that of the URL or of the queue.
    """
    url = registry.parse(settings.broker.url)
    spelling = registry.adapter(url.scheme).CONVENTIONS
    queue, dead_queue = settings.broker.queue, settings.deadletter.queue
    if url.queue and queue == type(settings.broker)().queue:
        queue = url.queue
    if url.queue and dead_queue == type(settings.deadletter)().queue:
        dead_queue = f"{url.queue}.dlq"
    source = _full("broker.queue", queue, lambda text: weighted_queues.full(text, spelling))
    dead = _full("deadletter.queue", dead_queue, spelling.queue)
    return replace(
        settings,
        broker=replace(settings.broker, queue=source),
        deadletter=replace(settings.deadletter, queue=dead),
    )


def _full(key: str, text: str, parse: Callable[[str], str]) -> str:
    try:
        return parse(text)
    except UsageError as fault:
        raise SettingsError(f"{key}: {fault.what}", key=key, advice=fault.advice) from None
