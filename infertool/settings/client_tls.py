"""The TLS settings of what connects to a server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTlsSettings:
    """Part of the settings of each client."""

    tls_verify: bool = True
    """Check the server's certificate and host name."""
    tls_ca_file: str = ""
    """PEM file of the authorities to trust instead of the system's."""
    tls_cert_file: str = ""
    """PEM file of the client certificate."""
    tls_key_file: str = ""
    """PEM file of the client certificate's key; empty when it is in tls_cert_file."""
