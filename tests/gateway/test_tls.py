"""Client certificates, and certificates that are renewed while the server runs."""

from __future__ import annotations

import shutil
import socket
import ssl
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from infertool.gateway.tls import Tls, TlsFiles
from tests.gateway.front_server import LONG, FrontServer
from tests.support.certificates import Authority, authority


def test_a_client_certificate_names_the_client(tmp_path: Path) -> None:
    ours = authority(tmp_path)
    certificate = str(ours.issue("server", "127.0.0.1"))
    tls = TlsFiles(cert_file=certificate, key_file="", client_ca_file=str(ours.file))
    with FrontServer(tls=Tls(tls)) as server:
        trusting = ssl.create_default_context(cafile=str(ours.file))
        url = f"{server.url}/v1/models/default/infer"
        assert httpx.post(url, json=1, verify=trusting).status_code == 200
        trusting.load_cert_chain(str(ours.issue("billing")))
        event_id = httpx.post(url, json=1, verify=trusting).headers["infertool-event-id"]
        assert server.engine.known[event_id].request.client == "billing"
        other = authority(tmp_path, "other")
        trusting = ssl.create_default_context(cafile=str(ours.file))
        trusting.load_cert_chain(str(other.issue("forged")))
        with pytest.raises(httpx.TransportError):
            httpx.post(url, json=1, verify=trusting)


def name_shown(server: FrontServer, trusting: ssl.SSLContext, host: str | None = None) -> str:
    """Return the common name of the certificate that a new connection to `host` is shown. Raises `OSError`."""
    with (
        socket.create_connection(("127.0.0.1", server.port), LONG) as line,
        trusting.wrap_socket(line, server_hostname=host) as connection,
    ):
        found = connection.getpeercert(binary_form=True)
        assert found
        # What refuses a client certificate comes after the handshake.
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        if not connection.recv(1000):
            raise ConnectionResetError
        (name,) = x509.load_der_x509_certificate(found).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(name.value)


def test_renewed_files_count_for_new_connections_and_bad_ones_change_nothing(tmp_path: Path) -> None:
    first, second = authority(tmp_path, "first"), authority(tmp_path, "second")
    certificate, clients = tmp_path / "cert.pem", tmp_path / "clients.pem"

    def install(by: Authority, name: str, accepted: Authority) -> None:
        shutil.copy(by.issue(name, "127.0.0.1"), certificate)
        shutil.copy(accepted.file, clients)

    def trusting(*authorities: Authority, client: Path | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.check_hostname = False
        for each in authorities:
            context.load_verify_locations(each.file)
        if client:
            context.load_cert_chain(client)
        return context

    install(first, "old", first)
    tls = Tls(TlsFiles(cert_file=str(certificate), key_file="", client_ca_file=str(clients)))
    mine, theirs = first.issue("mine"), second.issue("theirs")
    with FrontServer(tls=tls) as server, httpx.Client(verify=trusting(first), timeout=LONG) as kept:
        assert kept.get(f"{server.url}/livez").status_code == 200
        assert name_shown(server, trusting(first, client=mine)) == "old"

        for bad in (b"no certificate", first.file.read_bytes(), None):
            certificate.write_bytes(bad) if bad else certificate.unlink()
            server.run(tls.look())
            assert tls.fault
            assert name_shown(server, trusting(first)) == "old"

        install(second, "new", second)
        server.run(tls.look())
        assert not tls.fault
        for host in (None, "gateway.example"):
            assert name_shown(server, trusting(second, client=theirs), host=host) == "new"
        # The authorities of client certificates are new as well.
        with pytest.raises(OSError):
            name_shown(server, trusting(second, client=mine))
        # A connection that is open goes on.
        assert kept.get(f"{server.url}/livez").status_code == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_ends_with_the_authority_of_its_certificate(tmp_path: Path, version: ssl.TLSVersion) -> None:
    ours, other = authority(tmp_path), authority(tmp_path, "other")
    clients = tmp_path / "clients.pem"
    shutil.copy(ours.file, clients)
    certificate = str(ours.issue("server", "127.0.0.1"))
    tls = Tls(TlsFiles(cert_file=certificate, key_file="", client_ca_file=str(clients)))
    trusting = ssl.create_default_context(cafile=str(ours.file))
    trusting.maximum_version = version
    trusting.load_cert_chain(ours.issue("mine"))

    with FrontServer(tls=tls) as server:

        def ask(session: ssl.SSLSession | None = None) -> tuple[bytes, bool | None, ssl.SSLSession | None]:
            line = socket.create_connection(("127.0.0.1", server.port), LONG)
            with trusting.wrap_socket(line, server_hostname="127.0.0.1", session=session) as connection:
                connection.sendall(b"GET /v1/requests/none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                if not (told := connection.recv(1000)):
                    raise ConnectionResetError
                return told[:12], connection.session_reused, connection.session

        _, _, session = ask()
        told, is_resumed, session = ask(session)
        assert (told, is_resumed) == (b"HTTP/1.1 404", True)
        shutil.copy(other.file, clients)
        server.run(tls.look())
        with pytest.raises(OSError):
            ask(session)


def test_the_files_are_looked_at_while_the_server_runs(tmp_path: Path) -> None:
    ours = authority(tmp_path)
    certificate = tmp_path / "cert.pem"
    shutil.copy(ours.issue("old", "127.0.0.1"), certificate)
    tls = Tls(TlsFiles(cert_file=str(certificate), key_file="", client_ca_file=""))
    trusting = ssl.create_default_context(cafile=str(ours.file))
    trusting.check_hostname = False
    with FrontServer(tls=tls) as server:
        shutil.copy(ours.issue("new", "127.0.0.1"), certificate)
        while name_shown(server, trusting) != "new":
            pass


def test_a_key_with_a_pass_phrase_is_refused_and_nothing_asks_for_it(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    ours = authority(tmp_path)
    certificate = ours.issue("server", "127.0.0.1")
    key = tmp_path / "key.pem"
    key.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )  # fmt: skip
    with pytest.raises(ValueError, match="pass phrase"):
        Tls(TlsFiles(cert_file=str(certificate), key_file=str(key), client_ca_file=""))
