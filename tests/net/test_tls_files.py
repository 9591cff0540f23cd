"""Certificate files that cannot be used: the error names the setting, the file and the cause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infertool.errors import SettingsError
from infertool.net.tls import client_context
from infertool.settings import BrokerSettings, ModelSettings, PhoenixSettings
from tests.support import certificates

_KEY = "-----BEGIN PRIVATE KEY-----"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A client certificate with its key, each of them alone, and the key of another."""
    authority = certificates.authority(tmp_path)
    whole = authority.issue("client").read_text()
    certificate, _, key = whole.partition(_KEY)
    (tmp_path / "certificate.pem").write_text(certificate)
    (tmp_path / "key.pem").write_text(_KEY + key)
    (tmp_path / "other.pem").write_text(_KEY + authority.issue("other").read_text().partition(_KEY)[2])
    (tmp_path / "text.pem").write_text("no certificate")
    (tmp_path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    return tmp_path


@pytest.mark.parametrize(
    ("files", "key", "reason"),
    [
        ({"tls_ca_file": "text.pem"}, "tls_ca_file", "it holds no certificate in PEM form"),
        ({"tls_ca_file": "key.pem"}, "tls_ca_file", "it holds no certificate in PEM form"),
        ({"tls_ca_file": "broken.pem"}, "tls_ca_file", "it holds no certificate in PEM form"),
        ({"tls_ca_file": "missing.pem"}, "tls_ca_file", "No such file or directory"),
        ({"tls_cert_file": "text.pem"}, "tls_cert_file", "certificate and key in PEM form are needed"),
        ({"tls_cert_file": "certificate.pem"}, "tls_cert_file", "certificate and key in PEM form are needed"),
        ({"tls_cert_file": "missing.pem"}, "tls_cert_file", "No such file or directory"),
        ({"tls_cert_file": "certificate.pem", "tls_key_file": "missing.pem"}, "tls_key_file", "No such file"),
        ({"tls_cert_file": "missing.pem", "tls_key_file": "missing.pem"}, "tls_cert_file", "No such file"),
        ({"tls_cert_file": "certificate.pem", "tls_key_file": "other.pem"}, "tls_cert_file", "belong together"),
        ({"tls_key_file": "key.pem"}, "tls_key_file", "without"),
    ],
)
@pytest.mark.parametrize(
    ("group", "settings"), [("broker", BrokerSettings), ("phoenix", PhoenixSettings), ("model", ModelSettings)]
)
def test_a_file_that_cannot_be_used(
    folder: Path, group: str, settings: Callable[..., Any], files: dict[str, str], key: str, reason: str
) -> None:
    given = {name: str(folder / file) for name, file in files.items()}
    with pytest.raises(SettingsError) as caught:
        client_context(group, settings(**given))
    assert caught.value.key == f"{group}.{key}"
    assert reason in caught.value.what
    assert "_ssl.c" not in caught.value.what


def test_certificate_and_key_in_two_files(folder: Path) -> None:
    client_context(
        "broker",
        BrokerSettings(tls_cert_file=str(folder / "certificate.pem"), tls_key_file=str(folder / "key.pem")),
    )
