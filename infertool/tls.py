"""The TLS side of a connection, from the settings `tls_verify`, `tls_ca_file`, `tls_cert_file` and `tls_key_file`."""

from __future__ import annotations

import ssl
from typing import Protocol

from infertool.errors import SettingsError


class TlsSettings(Protocol):
    """The settings of a group that speaks TLS."""

    @property
    def tls_verify(self) -> bool:
        """Check certificate and host name."""

    @property
    def tls_ca_file(self) -> str:
        """Authorities to trust."""

    @property
    def tls_cert_file(self) -> str:
        """Client certificate."""

    @property
    def tls_key_file(self) -> str:
        """Its key."""


def client_context(group: str, settings: TlsSettings) -> ssl.SSLContext:
    """Return what `settings`, of the tree's `group`, ask for. Raises `SettingsError` for files that cannot be used."""
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca_file or None)
    except (OSError, ssl.SSLError) as fault:
        raise _unusable(f"{group}.tls_ca_file", settings.tls_ca_file, fault) from None
    if settings.tls_cert_file:
        try:
            # Without a password function OpenSSL would ask for an encrypted key's password on the terminal.
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file or None, password=_no_password)
        except (OSError, ssl.SSLError, ValueError) as fault:
            raise _unusable(f"{group}.tls_cert_file", settings.tls_cert_file, fault) from None
    if not settings.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted; store it without a password, readable by its user only")


def _unusable(key: str, path: str, fault: Exception) -> SettingsError:
    reason = getattr(fault, "strerror", None) or getattr(fault, "reason", None) or str(fault)
    return SettingsError(f"{key} {path!r} cannot be used: {reason}", key=key)
