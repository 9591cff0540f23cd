"""The TLS files of a server, which may be renewed while it runs: new connections get what could be read last."""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from infertool.gateway import off_loop
from infertool.net.tls import openssl_reason

_log = logging.getLogger("infertool")
LOOK_S: Final = 1.0
_Signature: TypeAlias = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files: the server's certificate and key, and the authorities of client certificates ("" for none)."""

    cert_file: str
    key_file: str
    client_ca_file: str

    def context(self) -> ssl.SSLContext:
        """Return the context. Raises `OSError`, `ssl.SSLError`, `ValueError`."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        # With a pass phrase OpenSSL would ask for it on the terminal.
        context.load_cert_chain(self.cert_file, self.key_file or None, password=_no_pass_phrase)
        context.set_alpn_protocols(["http/1.1"])
        if self.client_ca_file:
            context.load_verify_locations(self.client_ca_file)
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def signature(self) -> _Signature:
        """Return what changes when a file is written or replaced. Raises `OSError`."""
        found = [Path(path).stat() for path in (self.cert_file, self.key_file, self.client_ca_file) if path]
        return tuple((each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns) for each in found)


def _no_pass_phrase() -> str:
    raise ValueError("the key has a pass phrase: take one without")


def reason_of(fault: OSError | ValueError) -> str:
    """Return why files cannot be used."""
    if isinstance(fault, ssl.SSLError):
        return f"this is no certificate and its key in PEM form ({openssl_reason(fault)})"
    return getattr(fault, "strerror", None) or str(fault)


class _Newest(ssl.SSLContext):
    """The context of a listener, whose connections are those of `newest`.

    A connection whose context is changed in its handshake could resume a session of the first one, with a client
    certificate that none of the newest authorities has signed.
    """

    newest: ssl.SSLContext

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """See `SSLContext`; asyncio makes connections by it."""
        return self.newest.wrap_bio(*args, **options)


class Tls:
    """`context` is that of the listener; connections get the newest. Raises `OSError`, `ssl.SSLError`, `ValueError`."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        # Before the content: a change between the two is found by the next look.
        self._seen: _Signature | None = files.signature()
        self.context = _Newest(ssl.PROTOCOL_TLS_SERVER)
        self.context.newest = files.context()
        self.fault = ""

    async def watch(self) -> None:
        """Look for other files each second, for as long as this runs."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Take the files if they have changed and can be used; else those that were read last hold."""
        try:
            found = await off_loop.start(self._changed, "gateway-tls")
        except (OSError, ValueError) as fault:  # ssl.SSLError is an OSError
            self._note(reason_of(fault))
            return
        if found is not None:
            self.context.newest = found
            _log.info("the certificate %s was read again: new connections get it", self._files.cert_file)
            self.fault = ""

    def _changed(self) -> ssl.SSLContext | None:
        """Return a context of the files, None if they are as they were."""
        signature = self._files.signature()
        if signature == self._seen:
            return None
        # A file that is bad is read again once it has changed again.
        self._seen = signature
        return self._files.context()

    def _note(self, fault: str) -> None:
        if fault != self.fault:
            _log.warning("the TLS files cannot be used: %s; those that were read last hold", fault)
        self.fault = fault
