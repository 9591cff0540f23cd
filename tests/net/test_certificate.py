"""The certificate that a server shows, accepted or not, and the end of its validity."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from infertool.net.certificate import shown_by, validity_end
from tests.support.certificates import DAY, authority
from tests.support.present import present


@contextmanager
def serving(pem: Path) -> Iterator[Any]:
    """Yield the port of a server that shows a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    line, _ = listener.accept()
                    with suppress(OSError), context.wrap_socket(line, server_side=True) as tls:
                        tls.recv(1)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("ends_in", [DAY, -DAY / 24, 30_000 * DAY], ids=["tomorrow", "expired", "after 2049"])
def test_the_end_of_a_certificate(tmp_path: Path, ends_in: timedelta) -> None:
    issuer = authority(tmp_path)
    expected = (dt.datetime.now(dt.UTC) + ends_in).timestamp()
    with serving(issuer.issue("server", "127.0.0.1", ends_in=ends_in)) as port:
        context = ssl.create_default_context(cafile=issuer.file)
        shown = shown_by("127.0.0.1", port, context, 60)
    assert shown.version == "TLSv1.3"
    assert abs(present(shown.ends) - expected) < 3600
    assert (shown.fault is not None) == (ends_in < dt.timedelta())


def test_a_certificate_that_is_not_trusted_is_read_all_the_same(tmp_path: Path) -> None:
    with serving(authority(tmp_path).issue("server", "127.0.0.1")) as port:
        shown = shown_by("127.0.0.1", port, ssl.create_default_context(), 60)
    assert isinstance(shown.fault, ssl.SSLCertVerificationError)
    assert shown.fault.verify_code
    assert shown.ends


@pytest.mark.parametrize("data", [b"", b"\x30\x1e" + b"\x17\x0d9999999999999" * 2, b"certificate"])
def test_what_is_no_certificate_has_no_end(data: bytes) -> None:
    assert validity_end(data) is None
