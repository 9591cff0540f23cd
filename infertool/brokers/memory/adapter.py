"""What the registry needs of the in-process broker, and how it spells queues."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from infertool.brokers.plain_conventions import PlainConventions
from infertool.brokers.port import Browsing, Capabilities
from infertool.brokers.registry import UrlPath
from infertool.errors import UsageError

if TYPE_CHECKING:
    from infertool.brokers.port import Broker
    from infertool.brokers.registry import BrokerUrl
    from infertool.net.connection_state import OnConnection
    from infertool.settings.broker import BrokerSettings


# All that an option can switch off.
CAPABILITIES: Final = Capabilities(
    atomic_move=True,
    browse=Browsing.FULL,
    selectors=True,
    exclusive=True,
    priorities=True,
    expiry=True,
    depth=True,
    delivery_count=True,
    reply_addresses=True,
    header_types=True,
    highest_priority=255,
    max_unacked=1000,
    max_moves=100,
    max_move_bytes=8 * 1024 * 1024,
)
PORTS: Final[Mapping[str, int | None]] = {"memory": None}
PATH: Final = UrlPath.NOTHING
URL_OPTIONS: Final[frozenset[str] | None] = frozenset()

# Settings and scripts for STOMP brokers spell queues with it.
_PREFIX: Final = "/queue/"
# What the name of a queue for replies begins with. It ends with its connection.
REPLIES: Final = "replies:"
_NAME: Final = re.compile(r"[^\s,/*>?]+")


class MemoryConventions(PlainConventions):
    """See `infertool.brokers.port.Conventions`: a queue is its name, and every header is carried as it is."""

    ages_by_time: bool = False

    def queue(self, text: str) -> str:
        """See `infertool.brokers.port.Conventions`: `NAME` or `/queue/NAME` becomes `NAME`."""
        name = text.strip().removeprefix(_PREFIX)
        if not self.is_queue(name):
            raise UsageError(
                f"{text!r} is no queue of a memory broker", advice="write NAME; lists and patterns are not offered"
            )
        return name

    def is_queue(self, text: str) -> bool:
        """See `infertool.brokers.port.Conventions`."""
        return _NAME.fullmatch(text) is not None

    def reply_queue(self, text: str) -> str:
        """See `infertool.brokers.port.Conventions`."""
        return self.queue(text)


CONVENTIONS: Final = MemoryConventions()


def open_broker(
    settings: BrokerSettings,
    url: BrokerUrl,
    *,
    name: str,  # noqa: ARG001  # nothing shows it
    on_connection: OnConnection | None,
) -> Broker:
    """Return a broker that is not yet connected. Raises `SettingsError`."""
    from infertool.brokers.memory.broker import MemoryBroker  # noqa: PLC0415  # see `Adapter`
    from infertool.brokers.memory.server import address_of  # noqa: PLC0415  # see `Adapter`

    user, password = (url.user, url.password) if url.user else (settings.user, settings.password)
    address = address_of(url.hosts[0][0], url.options)
    return MemoryBroker(address, settings, user=user, password=password, on_connection=on_connection)
