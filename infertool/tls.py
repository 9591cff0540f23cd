"""The TLS side of a connection, from the settings `tls_verify`, `tls_ca_file`, `tls_cert_file` and `tls_key_file`."""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path
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


class ClientTls:
    """The context for connections, made anew when one of the files has changed, as when a certificate is renewed."""

    def __init__(self, group: str, settings: TlsSettings) -> None:
        """Raise `SettingsError` for files that cannot be used."""
        self._group = group
        self._settings = settings
        self._stamp = self._stamp_now()
        self.context = client_context(group, settings)

    def fresh(self) -> ClientTls:
        """Return self where no file has changed, else another. Raises `SettingsError` for files that cannot be used."""
        return self if self._stamp == self._stamp_now() else ClientTls(self._group, self._settings)

    def _stamp_now(self) -> tuple[tuple[int, ...] | None, ...]:
        settings = self._settings
        return tuple(map(_stamp, (settings.tls_ca_file, settings.tls_cert_file, settings.tls_key_file)))


def _stamp(path: str) -> tuple[int, ...] | None:
    """Return what changes when a file is written or replaced; None where there is no file."""
    if not path:
        return None
    with suppress(OSError, ValueError):
        status = Path(path).stat()
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return None


def _no_password() -> str:
    raise ValueError("the key is encrypted; store it without a password, readable by its user only")


def _unusable(key: str, path: str, fault: Exception) -> SettingsError:
    reason = getattr(fault, "strerror", None) or getattr(fault, "reason", None) or str(fault)
    return SettingsError(f"{key} {path!r} cannot be used: {reason}", key=key)
