"""Who is let in, as whom, and with what rights and limits."""

from __future__ import annotations

import asyncio
import io
import logging
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from infertool.errors import SettingsError
from infertool.gateway import live_keys
from infertool.gateway.gatekeeper import Gatekeeper
from infertool.gateway.key_file import KeyFile
from infertool.gateway.keys import ApiKey
from infertool.gateway.principal import Principal
from infertool.gateway.problem import Problem, Reason
from infertool.settings import GatewaySettings
from tests.gateway.jwks import AUDIENCE, ISSUER, KeySetServer, claims, key, token
from tests.gateway.test_keys import made

OPEN = GatewaySettings(rate="50/s", max_in_flight=5, max_bytes_in_flight=500)
SIGNER = key("P-256", "a")


def asked(gatekeeper: Gatekeeper, **sent: Any) -> Principal:
    """Return the principal for what is sent."""
    parts = {"authorization": None, "api_key": None, "certificate_name": None, "address": "198.51.100.1"} | sent
    return asyncio.run(gatekeeper.identify(**parts))


def refused(gatekeeper: Gatekeeper, **sent: Any) -> Reason:
    """Return why what is sent is refused; the refusal does not show it, and names the way to come in."""
    with pytest.raises(Problem) as problem:
        asked(gatekeeper, **sent)
    shown = f"{problem.value} {problem.value.document()} {problem.value.headers}"
    for value in sent.values():
        assert len(value) < 20 or value not in shown
    assert problem.value.headers["WWW-Authenticate"].startswith("Bearer")
    return problem.value.reason


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def store(path: Path, *entries: ApiKey) -> None:
    with KeyFile(path).changing() as found:
        found[:] = entries


def test_an_open_gateway_takes_everybody_by_address_and_looks_at_no_credentials() -> None:
    for gatekeeper in (Gatekeeper(OPEN), Gatekeeper(replace(OPEN, listen="0.0.0.0:80", anonymous=True))):
        found = asked(gatekeeper, authorization="Bearer ik_x", address="2001:db8::1")
        assert (found.client, found.models, found.classes) == ("address:2001:db8::/64", None, None)
        assert found.limits.rate is not None
        assert (found.limits.rate.count, found.limits.max_in_flight, found.limits.max_bytes_in_flight) == (50, 5, 500)
        assert gatekeeper.health() == []


@pytest.mark.parametrize("listen", ["0.0.0.0:80", "[::]:80", "gateway.example.com:80", "10.0.0.1:80", ":80"])
def test_an_open_gateway_on_a_network_does_not_start_by_accident(listen: str) -> None:
    if listen == ":80":  # 127.0.0.1
        Gatekeeper(replace(OPEN, listen=listen))
        return
    with pytest.raises(SettingsError, match=r"gateway\.listen"):
        Gatekeeper(replace(OPEN, listen=listen))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"keys_file": "/nowhere/keys.json"}, "keys_file"),
        ({"jwks_url": "https://x.example.com"}, "jwt_issuer"),
        ({"jwks_url": "https://x.example.com", "jwt_issuer": "x"}, "jwt_audience"),
        ({"jwt_issuer": "x", "jwt_audience": "a"}, "jwt_issuer"),
        ({"jwt_audience": "a"}, "jwt_audience"),
        ({"rate": "fast"}, "rate"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        Gatekeeper(replace(OPEN, **settings))


def test_keys_give_their_rights_and_limits(path: Path) -> None:
    entry, text = made("a", models=("fraud",), classes=("batch",), rate="1/h", max_in_flight=1, max_bytes_in_flight=9)
    plain, plain_text = made("b")
    store(path, entry, plain)
    gatekeeper = Gatekeeper(replace(OPEN, keys_file=str(path), listen="0.0.0.0:80"))
    for sent in ({"authorization": f"Bearer {text}"}, {"authorization": f"bearer  {text} "}, {"api_key": text}):
        found = asked(gatekeeper, **sent)
        assert (found.client, found.models, found.classes) == ("key:a", frozenset({"fraud"}), frozenset({"batch"}))
        assert found.limits.rate is not None
        assert (found.limits.rate.seconds, found.limits.max_in_flight, found.limits.max_bytes_in_flight) == (3600, 1, 9)
    assert asked(gatekeeper, api_key=plain_text).limits.max_in_flight == 5

    assert found.class_for("", "standard") == "batch"
    assert found.class_for("standard", "standard") == "standard"
    assert asked(gatekeeper, api_key=plain_text).class_for("", "standard") == "standard"
    found.check("fraud", "batch")
    for model, class_name, reason in (
        ("churn", "batch", Reason.MODEL_FORBIDDEN), ("fraud", "standard", Reason.CLASS_FORBIDDEN),
    ):  # fmt: skip
        with pytest.raises(Problem) as problem:
            found.check(model, class_name)
        assert problem.value.reason is reason
        assert problem.value.reason.status == 403

    assert refused(gatekeeper) is Reason.UNAUTHENTICATED
    wrong = text[:-1] + ("a" if text[-1] != "a" else "b")
    for bad in (
        {"authorization": text}, {"authorization": "Bearer"}, {"authorization": ""}, {"authorization": f"Basic {text}"},
        {"authorization": f"Bearer {wrong}"}, {"api_key": wrong}, {"api_key": ""}, {"api_key": "x" * 100_000},
        {"authorization": f"Bearer {text}", "api_key": text}, {"authorization": "Bearer a.b.c"},
        {"api_key": f"{text},{text}"},
    ):  # fmt: skip
        assert refused(gatekeeper, **bad) is Reason.INVALID_CREDENTIALS
    # Nobody who errs in the key is taken for a stranger, with other limits.
    anonymous = Gatekeeper(replace(OPEN, keys_file=str(path), anonymous=True))
    assert refused(anonymous, api_key=wrong) is Reason.INVALID_CREDENTIALS
    assert asked(anonymous).client == "address:198.51.100.1"
    assert refused(anonymous, authorization="Bearer a.b.c") is Reason.INVALID_CREDENTIALS


def test_keys_that_are_expired_or_revoked(path: Path) -> None:
    now = datetime.now(UTC)
    soon, soon_text = made("soon", expires=now + timedelta(hours=1))
    gone, gone_text = made("gone", revoked=now - timedelta(hours=1))
    store(path, soon, gone)
    clock = [now.timestamp()]
    gatekeeper = Gatekeeper(replace(OPEN, keys_file=str(path)), clock=lambda: clock[0])
    assert asked(gatekeeper, api_key=soon_text).client == "key:soon"
    assert refused(gatekeeper, api_key=gone_text) is Reason.INVALID_CREDENTIALS
    clock[0] += 3600
    assert refused(gatekeeper, api_key=soon_text) is Reason.INVALID_CREDENTIALS


def test_certificates_have_the_rights_that_the_file_gives_their_names(path: Path) -> None:
    now = datetime.now(UTC)
    limited = ApiKey(id="aaaaaaaaaa", name="billing", created=now, certificate="billing.example.com", models=("fraud",))
    ended = ApiKey(id="bbbbbbbbbb", name="old", created=now, certificate="old.example.com", revoked=now)
    entry, text = made("a")
    store(path, limited, ended, entry)
    gatekeeper = Gatekeeper(replace(OPEN, keys_file=str(path), tls_client_ca_file="ca.pem"))
    found = asked(gatekeeper, certificate_name="billing.example.com")
    assert (found.client, found.models) == ("key:billing", frozenset({"fraud"}))
    assert asked(gatekeeper, certificate_name="other.example.com").client == "certificate:other.example.com"
    assert asked(gatekeeper, certificate_name="other.example.com", api_key=text).client == "key:a"
    # Without its entry it would have all rights.
    assert refused(gatekeeper, certificate_name="old.example.com") is Reason.INVALID_CREDENTIALS
    assert refused(gatekeeper) is Reason.UNAUTHENTICATED
    plain = Gatekeeper(replace(OPEN, keys_file=str(path)))
    assert refused(plain, certificate_name="billing.example.com") is Reason.UNAUTHENTICATED


def test_tokens_and_keys_side_by_side(path: Path) -> None:
    entry, text = made("anna")
    store(path, entry)
    with KeySetServer(SIGNER) as server:
        settings = replace(OPEN, jwks_url=server.url, jwt_issuer=ISSUER, jwt_audience=AUDIENCE)
        gatekeeper = Gatekeeper(replace(settings, keys_file=str(path)))
        sent = token(SIGNER, claims(infertool_models=[]), "ES256")

        async def ask() -> list[Principal]:
            return [await gatekeeper.identify(f"Bearer {each}", None, None, "") for each in (sent, sent, text)]

        found = asyncio.run(ask())
        assert [each.client for each in found] == ["token:anna", "token:anna", "key:anna"]
        with pytest.raises(Problem, match="none"):
            found[0].check("fraud", "batch")
        assert {each.name: each.value for each in gatekeeper.health()} == {"keys_file": "read", "key_set": "read"}
        only_tokens = Gatekeeper(settings)
        assert refused(only_tokens, api_key=sent) is Reason.INVALID_CREDENTIALS
        assert refused(only_tokens, authorization=f"Bearer {text}") is Reason.INVALID_CREDENTIALS


def test_a_change_of_the_file_counts_without_a_restart_and_a_broken_file_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live_keys, "LOOK_S", 0.0)
    monkeypatch.setattr(live_keys, "_LONGEST_LOOK_S", 120.0)
    caplog.set_level(logging.INFO)
    entry, text = made("a")
    store(path, entry)
    gatekeeper = Gatekeeper(replace(OPEN, keys_file=str(path)))

    async def client(sent: str) -> str:
        try:
            return (await gatekeeper.identify(None, sent, None, "")).client
        except Problem as problem:
            return problem.detail

    def clients(sent: str, count: int = 1) -> set[str]:
        async def ask() -> set[str]:
            return set(await asyncio.gather(*(client(sent) for _ in range(count))))

        return asyncio.run(ask())

    second, second_text = made("b")
    assert clients(second_text) == {"there is no such key"}
    store(path, entry, second)
    assert clients(second_text, 100) == {"key:b"}
    store(path, msgspec.structs.replace(entry, revoked=datetime.now(UTC)), second)
    assert clients(text) == {"the key is revoked"}

    good = path.read_bytes()
    for broken in (good[:-20], b"", None, good.replace(b'"name"', b'"nmae"')):
        path.unlink(missing_ok=True)
        if broken is not None:
            path.write_bytes(broken)
        for _ in range(3):
            assert clients(second_text) == {"key:b"}
        assert [each.value for each in gatekeeper.health()] != ["read"]
    path.write_bytes(good)
    assert clients(second_text) == {"key:b"}
    assert [each.value for each in gatekeeper.health()] == ["read"]
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage().count("the last keys that could be read hold") for record in warnings] == [1] * len(
        warnings
    )
    assert 3 <= len(warnings) <= 4  # once for each fault, not for each look
    assert text.rpartition("_")[2] not in caplog.text


def test_a_file_system_that_hangs_stops_nobody(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    entry, text = made("a")
    store(path, entry)
    gatekeeper = Gatekeeper(replace(OPEN, keys_file=str(path)))
    monkeypatch.setattr(live_keys, "LOOK_S", 0.0)
    monkeypatch.setattr(live_keys, "_LONGEST_LOOK_S", 0.05)
    end, looks = threading.Event(), []

    def hang(_: KeyFile) -> Any:
        looks.append(1)
        end.wait()
        raise OSError

    monkeypatch.setattr(KeyFile, "signature", hang)

    async def check() -> None:
        for _ in range(5):
            assert (await gatekeeper.identify(None, text, None, "")).client == "key:a"
        assert len(looks) == 1

    try:
        asyncio.run(check())
    finally:
        end.set()


def test_secrets_are_never_shown(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is printed or logged at the finest level while good and bad credentials come in."""
    entry, text = made("a")
    store(path, entry)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    monkeypatch.setattr(logging.getLogger("infertool"), "level", logging.DEBUG)
    try:
        with KeySetServer(SIGNER) as server:
            settings = replace(OPEN, jwks_url=server.url, jwt_issuer=ISSUER, jwt_audience=AUDIENCE, keys_file=str(path))
            gatekeeper = Gatekeeper(settings)
            sent = [text, text[:-1], token(SIGNER, None, "ES256"), token(SIGNER, claims(exp=1), "ES256"), "a.b.c"]
            for each in sent:
                try:
                    print(repr(asked(gatekeeper, authorization=f"Bearer {each}")))
                except Problem as problem:
                    print(repr(problem), problem.document(), problem.headers, problem.lines())
            print(repr(entry), repr(settings), gatekeeper.health())
    finally:
        logging.getLogger().removeHandler(handler)
    shown = stream.getvalue()
    assert "key:a" in shown
    for each in sent:
        assert each not in shown
        # The secret of a key, or the signature of a token, which may have any character of base64.
        secret = each.rpartition("_")[2] if each.startswith("ik_") else each.rpartition(".")[2]
        assert secret not in shown or each == "a.b.c"
