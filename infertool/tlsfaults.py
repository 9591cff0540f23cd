"""Why TLS failed, in words that help: a certificate of the server's, one of ours, or the version."""

from __future__ import annotations

import ssl
from typing import Final

# X509_V_ERR_CERT_NOT_YET_VALID, _CERT_HAS_EXPIRED; _HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH
_OUT_OF_DATE: Final = {9, 10}
_OTHER_NAME: Final = {62, 64}
_OLD_VERSION: Final = {"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"}
# What OpenSSL calls the other side's last word: it is about what we showed it.
_ALERT: Final = "_ALERT_"


def explain(fault: ssl.SSLError, address: str, group: str, *, shown: bool) -> tuple[str, str] | None:
    """Return what happened and what to do, in words of the settings' `group`; None where nothing more is known.

    `shown` tells whether we have a client certificate to show.
    """
    if isinstance(fault, ssl.SSLCertVerificationError):
        return _not_accepted(fault, address, group)
    reason = fault.reason or ""
    if reason in _OLD_VERSION:
        return f"{address} speaks a version of TLS that is no longer safe", "have the server offer TLS 1.2 or later"
    _, is_alert, alert = reason.partition(_ALERT)
    if not is_alert:
        return None
    words = said(fault).partition(" alert ")[2]
    if "certificate" not in words and alert != "UNKNOWN_CA":
        return f"{address} ended the TLS handshake: {words}", f"{certificate_question(group, shown=shown)}?"
    if not shown:
        return f"{address} wants a client certificate ({words})", f"set {group}.tls_cert_file"
    what = f"{address} does not accept the client certificate of {group}.tls_cert_file: {words}"
    return what, "have it issued by an authority that the server trusts, and see that it has not expired"


def said(fault: ssl.SSLError) -> str:
    """Return what OpenSSL says, without the place in its source."""
    if isinstance(fault, ssl.SSLEOFError):
        return "the server ended the connection"
    return fault.reason.lower().replace("_", " ") if fault.reason else str(fault)


def certificate_question(group: str, *, shown: bool) -> str:
    """Ask about the client certificate: many servers end the connection over it without a word."""
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
