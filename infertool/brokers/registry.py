"""Which adapter a broker URL names: scheme to module, imported when it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol, cast

from infertool.errors import SettingsError
from infertool.text.nearest import nearest

if TYPE_CHECKING:
    from infertool.brokers.port import Broker, Capabilities, Conventions
    from infertool.brokers.url import BrokerUrl
    from infertool.net.connection_state import OnConnection
    from infertool.settings.tree import BrokerSettings


class Adapter(Protocol):
    """What the module of an adapter offers. Its import must cost little: `open_broker` imports the client."""

    # The default port of each scheme, None for a scheme without ports.
    PORTS: Mapping[str, int | None]
    # What is known of its brokers without a connection.
    CAPABILITIES: Capabilities
    CONVENTIONS: Conventions

    def open_broker(
        self, settings: BrokerSettings, url: BrokerUrl, *, name: str, on_connection: OnConnection | None
    ) -> Broker:
        """Return a broker that is not yet connected. Raises `SettingsError`."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """The module of an adapter, and the extra of infertool that installs what it imports; empty for none."""

    module: str
    extra: str = ""


_STOMP: Final = _Entry("infertool.brokers.stomp.adapter")
_SCHEMES: Final[Mapping[str, _Entry]] = {
    "stomp": _STOMP,
    "stomp+ssl": _STOMP,
    "memory": _Entry("infertool.brokers.memory.adapter"),
}


def adapter(scheme: str) -> Adapter:
    """Return the adapter of a URL's scheme. Raises `SettingsError` for a scheme that none has."""
    entry = _SCHEMES.get(scheme)
    if entry is None:
        raise _unknown(scheme)
    try:
        return cast("Adapter", import_module(entry.module))
    except ModuleNotFoundError as missing:
        if not entry.extra:
            raise
        raise SettingsError(
            f"brokers of the scheme {scheme} need the package {missing.name}, which is not installed",
            key="broker.url",
            advice=f"pip install 'infertool[{entry.extra}]'",
        ) from None


def _unknown(scheme: str) -> SettingsError:
    meant = nearest(scheme, _SCHEMES)
    advice = f"did you mean {meant}://?" if meant else f"known are {', '.join(_SCHEMES)}"
    return SettingsError(
        f"no broker is known for the scheme {scheme!r}", key="broker.url", nearest=meant, advice=advice
    )
