"""One host to connect to, and how."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

from infertool.brokers.url import BrokerUrl
from infertool.errors import SettingsError
from infertool.secret import MASK, Secret
from infertool.settings.tree import BrokerSettings
from infertool.tls import client_context


@dataclass(frozen=True, slots=True)
class Target:
    """A host of a broker URL. Times are seconds; `heartbeat_s` 0 means none; `tls` None means plain."""

    scheme: str
    host: str
    port: int
    user: str
    password: Secret
    tls: ssl.SSLContext | None = field(repr=False)
    heartbeat_s: float
    connect_timeout_s: float
    receipt_timeout_s: float

    @property
    def address(self) -> str:
        """The address for people: no user, no password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def masked(self, text: str) -> str:
        """Return `text`, which a server wrote, without the password."""
        secret = self.password.reveal()
        # A password that equals the user name is no secret, and masking it would garble the server's own words.
        return text.replace(secret, MASK) if secret and secret != self.user else text


def targets(settings: BrokerSettings, url: BrokerUrl) -> tuple[Target, ...]:
    """Return the hosts of `url`. Its user part goes before the settings'. Raises SettingsError for TLS files."""
    user, password = url.user or settings.user, url.password or settings.password
    if any(end in text for text in (user, password.reveal()) for end in "\r\n\0"):
        # The CONNECT frame has no escapes, so the rest of such a password would become headers.
        raise SettingsError("the broker's user or password holds a line break", key="broker.password")
    tls = client_context("broker", settings) if url.scheme == "stomp+ssl" else None
    return tuple(
        Target(
            url.scheme, host, port, user, password, tls,
            settings.heartbeat_s, settings.connect_timeout_s, settings.receipt_timeout_s,
        )
        for host, port in url.hosts
    )  # fmt: skip
