"""One host to connect to, and how."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from infertool.brokers.url import BrokerUrl
from infertool.errors import SettingsError, UnreachableError
from infertool.secret import MASK, Secret
from infertool.settings.tree import BrokerSettings
from infertool.tls import ClientTls


@dataclass(frozen=True, slots=True)
class Target:
    """A host of a broker URL. Times are seconds; `heartbeat_s` 0 means none; `tls` None means plain.

    Password and TLS files are read again for each connection, by `fresh`.
    """

    scheme: str
    host: str
    port: int
    user: str
    password: Secret
    tls: ClientTls | None = field(repr=False)
    heartbeat_s: float
    connect_timeout_s: float
    receipt_timeout_s: float

    @property
    def address(self) -> str:
        """The address for people: no user, no password."""
        return f"{self.scheme}://{self.place}"

    @property
    def place(self) -> str:
        """Host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def fresh(self) -> Target:
        """Return the target with the files' present content, for one connection.

        Raises UnreachableError for a file that cannot be used now: it may be in the middle of a rotation.
        """
        try:
            password = self.password.fixed()
            _check(password)
            return replace(self, password=password, tls=self.tls and self.tls.fresh())
        except SettingsError as fault:
            raise UnreachableError(fault.what, address=self.address, advice=fault.advice) from None

    def masked(self, text: str) -> str:
        """Return `text`, which a server wrote, without the password."""
        secret = self.password.reveal()
        # A password that equals the user name is no secret, and masking it would garble the server's own words.
        return text.replace(secret, MASK) if secret and secret != self.user else text


def targets(settings: BrokerSettings, url: BrokerUrl) -> tuple[Target, ...]:
    """Return the hosts of `url`. Its user part goes before the settings'. Raises SettingsError for TLS files."""
    user, password = url.user or settings.user, url.password or settings.password
    _check(Secret(user), password)
    tls = ClientTls("broker", settings) if url.scheme == "stomp+ssl" else None
    return tuple(
        Target(
            url.scheme, host, port, user, password, tls,
            settings.heartbeat_s, settings.connect_timeout_s, settings.receipt_timeout_s,
        )
        for host, port in url.hosts
    )  # fmt: skip


def _check(*texts: Secret) -> None:
    if any(end in text.reveal() for text in texts for end in "\r\n\0"):
        # The CONNECT frame has no escapes, so the rest of such a password would become headers.
        raise SettingsError("the broker's user or password holds a line break", key="broker.password")
