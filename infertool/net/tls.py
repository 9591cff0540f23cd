"""TLS for client connections: contexts from the settings `tls_*`, and explanations of TLS errors."""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from infertool.errors import SettingsError


class TlsSettings(Protocol):
    """The TLS settings of a settings group."""

    @property
    def tls_verify(self) -> bool:
        """True if the server's certificate and host name are checked."""

    @property
    def tls_ca_file(self) -> str:
        """PEM file of the authorities to trust."""

    @property
    def tls_cert_file(self) -> str:
        """PEM file of the client certificate."""

    @property
    def tls_key_file(self) -> str:
        """PEM file of the client certificate's key."""


def client_context(group: str, settings: TlsSettings) -> ssl.SSLContext:
    """Return the context for `settings` of the settings group `group`. Raises `SettingsError` for unusable files."""
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca_file or None)
    except (OSError, ssl.SSLError) as fault:
        raise _unusable(f"{group}.tls_ca_file", settings.tls_ca_file, fault) from None
    if settings.tls_key_file and not settings.tls_cert_file:
        key = f"{group}.tls_key_file"
        raise SettingsError(f"{key} is set without {group}.tls_cert_file", key=key)
    if settings.tls_cert_file:
        try:
            # Without a password function OpenSSL would prompt on the terminal for an encrypted key's password.
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file or None, password=_no_password)
        except (OSError, ssl.SSLError, ValueError) as fault:
            name = "tls_key_file" if _is_key_missing(settings, fault) else "tls_cert_file"
            raise _unusable(f"{group}.{name}", getattr(settings, name), fault) from None
    if not settings.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class ClientTls:
    """The TLS context of a client, and its replacement when a file has changed, such as a renewed certificate."""

    def __init__(self, group: str, settings: TlsSettings) -> None:
        """Raise `SettingsError` for unusable files."""
        self._group = group
        self._settings = settings
        self._stamp = self._stamp_now()
        self.shows_certificate = bool(settings.tls_cert_file)
        self.context = client_context(group, settings)

    def fresh(self) -> ClientTls:
        """Return self, or a new one if a file has changed. Raises `SettingsError` for unusable files."""
        return self if self._stamp == self._stamp_now() else ClientTls(self._group, self._settings)

    def _stamp_now(self) -> tuple[tuple[int, ...] | None, ...]:
        settings = self._settings
        return tuple(map(_stamp, (settings.tls_ca_file, settings.tls_cert_file, settings.tls_key_file)))


def _stamp(path: str) -> tuple[int, ...] | None:
    """Return values that change when the file is written or replaced; None if there is no file."""
    if not path:
        return None
    with suppress(OSError, ValueError):
        status = Path(path).stat()
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return None


def _no_password() -> str:
    raise ValueError("the key is encrypted; store it without a password, readable by its user only")


def _is_key_missing(settings: TlsSettings, fault: Exception) -> bool:
    """Return True if the key file is unreadable and the certificate file is not. OpenSSL does not tell which."""
    if isinstance(fault, ssl.SSLError) or not isinstance(fault, OSError) or not settings.tls_key_file:
        return False
    with suppress(OSError, ValueError), Path(settings.tls_cert_file).open("rb"):
        return True
    return False


def _unusable(key: str, path: str, fault: Exception) -> SettingsError:
    return SettingsError(f"{key} {path!r} cannot be used: {_reason(key, fault)}", key=key)


def _reason(key: str, fault: Exception) -> str:
    if not isinstance(fault, ssl.SSLError):
        return getattr(fault, "strerror", None) or str(fault)
    # For a file that is not PEM, OpenSSL's reasons are names such as "PEM lib".
    if fault.reason == "KEY_VALUES_MISMATCH":
        return "certificate and key do not belong together"
    if key.endswith("ca_file"):
        return "it holds no certificate in PEM form"
    return "certificate and key in PEM form are needed, the key in this file or in tls_key_file"


# X509_V_ERR_CERT_NOT_YET_VALID, _CERT_HAS_EXPIRED; _HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH
_OUT_OF_DATE: Final = {9, 10}
_OTHER_NAME: Final = {62, 64}
_OLD_VERSION: Final = {"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"}
# Part of OpenSSL's reason when the server sent an alert: it is about our side of the handshake.
_ALERT: Final = "_ALERT_"


def explain(fault: ssl.SSLError, address: str, group: str, *, shown: bool) -> tuple[str, str] | None:
    """Return the cause and an advice that names keys of the settings `group`; None if OpenSSL's reason says it all.

    `shown` is True if a client certificate was sent.
    """
    if isinstance(fault, ssl.SSLCertVerificationError):
        return _not_accepted(fault, address, group)
    reason = fault.reason or ""
    if reason in _OLD_VERSION:
        return f"{address} speaks a version of TLS that is no longer safe", "have the server offer TLS 1.2 or later"
    _, is_alert, alert = reason.partition(_ALERT)
    if not is_alert:
        return None
    text = openssl_reason(fault).partition(" alert ")[2]
    if "certificate" not in text and alert != "UNKNOWN_CA":
        return f"{address} ended the TLS handshake: {text}", f"{certificate_question(group, shown=shown)}?"
    if not shown:
        return f"{address} wants a client certificate ({text})", f"set {group}.tls_cert_file"
    what = f"{address} does not accept the client certificate of {group}.tls_cert_file: {text}"
    return what, "have it issued by an authority that the server trusts, and see that it has not expired"


def openssl_reason(fault: ssl.SSLError) -> str:
    """Return OpenSSL's reason without its source location."""
    if isinstance(fault, ssl.SSLEOFError):
        return "the server ended the connection"
    return fault.reason.lower().replace("_", " ") if fault.reason else str(fault)


def certificate_question(group: str, *, shown: bool) -> str:
    """Return a question about the client certificate: many servers close the connection over it without an alert."""
    if shown:
        return f"does it accept the client certificate of {group}.tls_cert_file"
    return f"does it want a client certificate ({group}.tls_cert_file)"


def _not_accepted(fault: ssl.SSLCertVerificationError, address: str, group: str) -> tuple[str, str]:
    advice = f"set {group}.tls_ca_file to the PEM file of its authority"
    if fault.verify_code in _OUT_OF_DATE:
        advice = "have the server's certificate renewed, and check the clocks of both machines"
    elif fault.verify_code in _OTHER_NAME:
        advice = "connect by a name that the certificate has, or have one issued for this name"
    return f"the certificate of {address} is not accepted: {fault.verify_message.rstrip('.')}", advice
