"""Bearer tokens: which are accepted, which are not, and a server of keys that misbehaves."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infertool.gateway import key_set
from infertool.gateway.key_set import LEAST_PAUSE_S, REFRESH_S, KeySet
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.tokens import LONGEST, Claims, Tokens
from tests.gateway import jwks
from tests.gateway.jwks import AUDIENCE, ISSUER, KeySetServer, claims, raw_token, token
from tests.support.certificates import authority

RSA, OTHER_RSA = jwks.key("RSA", "rsa"), jwks.key("RSA", "other")
P256 = jwks.key("P-256", "p256")
ED = jwks.key("Ed25519", "ed")
NOW = time.time()
REFUSED = Reason.INVALID_CREDENTIALS


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; the time-out of the tests ends a wait for one that never comes."""
    while not condition():  # noqa: ASYNC110  (of another thread)
        await asyncio.sleep(0.01)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a good answer may take longer than a fetch is given."""
    _patient_again(monkeypatch)


def _patient_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_set, "FETCH_S", 120.0)
    monkeypatch.setattr(key_set, "_SILENCE_S", 120.0)


@pytest.fixture(scope="module")
def server() -> Iterator[KeySetServer]:
    with KeySetServer(RSA, P256, jwks.key("P-384", "p384"), ED) as found:
        found.extra = [{"kty": "oct", "kid": "oct", "k": "c2VjcmV0", "alg": "HS256"}]
        yield found


def checked(server: KeySetServer, *sent: str) -> list[Claims | str]:
    """Return the claims of each token, or why it is refused."""

    async def check_all() -> list[Claims | str]:
        tokens = Tokens(KeySet(server.url), issuer=ISSUER, audience=AUDIENCE)
        return [await outcome(tokens, each) for each in sent]

    async def outcome(tokens: Tokens, each: str) -> Claims | str:
        try:
            return await tokens.check(each)
        except Problem as problem:
            shown = f"{problem.document()}{problem.headers}"
            return f"{problem.reason}" if each in shown or problem.reason is not REFUSED else problem.detail

    return asyncio.run(check_all())


@pytest.mark.parametrize(
    ("signer", "algorithm"),
    [(RSA, "RS256"), (RSA, "RS512"), (RSA, "PS256"), (P256, "ES256"), (ED, "EdDSA"), (ED, "Ed25519")],
)
def test_a_token_is_accepted_with_each_algorithm_of_its_key(server: KeySetServer, signer: Any, algorithm: str) -> None:
    said = claims(infertool_models=["fraud", "churn"], infertool_classes="standard batch", aud=["x", AUDIENCE])
    sent = token(signer, said, algorithm, x5t="unknown headers are passed over")
    first, again = checked(server, sent, sent)
    assert first == again
    assert isinstance(first, Claims)
    assert (first.subject, first.models, first.classes) == (
        "anna",
        frozenset({"fraud", "churn"}),
        frozenset({"standard", "batch"}),
    )
    (plain,) = checked(server, token(signer, claims(), algorithm))
    assert isinstance(plain, Claims)
    assert (plain.models, plain.classes) == (None, None)


def hmac_token(secret: bytes, **header: Any) -> str:
    """Return a token signed with the public key as if it were an HMAC secret."""
    signed = raw_token({"alg": "HS256", **header}, claims()).rpartition(".")[0]
    return signed + "." + raw_token({}, {}, hmac.digest(secret, signed.encode(), hashlib.sha256)).rpartition(".")[2]


GOOD = token(RSA)
BAD = {
    "alg none": raw_token({"alg": "none"}, claims()),
    "alg None with a key": raw_token({"alg": "None", "kid": "rsa"}, claims(), b"x"),
    "no alg": raw_token({"kid": "rsa"}, claims(), b"x"),
    "alg of another type": raw_token({"alg": ["RS256"], "kid": "rsa"}, claims(), b"x"),
    "HMAC by the public key": hmac_token(RSA.as_pem(private=False), kid="rsa"),
    "HMAC by a secret of the set": hmac_token(b"secret", kid="oct"),
    "an algorithm of another kind of key": raw_token({"alg": "ES256", "kid": "rsa"}, claims(), b"x" * 64),
    "a curve of another key": raw_token({"alg": "ES384", "kid": "p256"}, claims(), b"x" * 96),
    "an unknown algorithm": raw_token({"alg": "XS256", "kid": "rsa"}, claims(), b"x"),
    "signed by a stranger": token(OTHER_RSA, kid="rsa"),
    "a stranger's kid": token(OTHER_RSA),
    "a stranger's key in the header": token(OTHER_RSA, jwk=OTHER_RSA.as_dict(private=False), kid="rsa"),
    "no kid, two keys fit": token(RSA, kid=None, algorithm="RS256"),
    "kid of another type": raw_token({"alg": "RS256", "kid": 1}, claims(), b"x"),
    "crit": raw_token({"alg": "RS256", "kid": "rsa", "crit": ["b64"], "b64": False}, claims(), b"x"),
    "signature cut": GOOD[:-4],
    "no signature": GOOD.rpartition(".")[0] + ".",
    "claims exchanged": GOOD.replace(GOOD.split(".")[1], raw_token({}, claims(sub="root")).split(".")[1]),
    "four parts": GOOD + ".x",
    "five parts (JWE)": ".".join(["eyJhbGciOiJkaXIifQ"] * 5),
    "two parts": "a.b",
    "dots": "..",
    "no token": "hello",
    "not ASCII": "ü.ü.ü",
    "header is no object": raw_token([1], claims(), b"x"),
    "claims are no object": token(RSA, b"[1]"),
    "claims are no JSON": token(RSA, b"{"),
    "claims nested deep": token(RSA, b"[" * 3000),
    "expired": token(RSA, claims(exp=NOW - 60)),
    "no exp": token(RSA, claims(exp=None)),
    "exp of another type": token(RSA, claims(exp=str(NOW + 60_000))),
    "exp true": token(RSA, claims(exp=True)),
    "exp infinite": token(RSA, b'{"iss":"%s","aud":"infertool","sub":"a","exp":1e999}' % ISSUER.encode()),
    "not valid yet": token(RSA, claims(nbf=NOW + 60_000)),
    "issued in the future": token(RSA, claims(iat=NOW + 60_000)),
    "another issuer": token(RSA, claims(iss=ISSUER + "/")),
    "no issuer": token(RSA, claims(iss=None)),
    "issuers": token(RSA, claims(iss=[ISSUER])),
    "another audience": token(RSA, claims(aud="billing")),
    "no audience": token(RSA, claims(aud=None)),
    "audience as a part": token(RSA, claims(aud=AUDIENCE + "2")),
    "audiences of others": token(RSA, claims(aud=["a", ["infertool"]])),
    "no subject": token(RSA, claims(sub=None)),
    "empty subject": token(RSA, claims(sub="")),
    "subject of another type": token(RSA, claims(sub=1)),
    "subject with a line break": token(RSA, claims(sub="a\nb")),
    "long subject": token(RSA, claims(sub="a" * 256)),
    "models null": token(RSA, {**claims(), "infertool_models": None}),
    "models of another type": token(RSA, claims(infertool_models={"fraud": True})),
    "models with numbers": token(RSA, claims(infertool_classes=[1])),
    "huge": token(RSA, claims(filler="a" * LONGEST)),
    "huge and empty": "." * 1_000_000,
}  # fmt: skip


def test_tokens_that_are_refused(server: KeySetServer) -> None:
    server.keys.append(jwks.key("RSA", "second"))
    try:
        found = dict(zip(BAD, checked(server, *BAD.values()), strict=True))
    finally:
        server.keys.pop()
    assert not {name: what for name, what in found.items() if isinstance(what, Claims)}
    assert not {name: what for name, what in found.items() if str(what).startswith("Reason.")}
    assert found["expired"] == "the token has expired"
    assert found["alg none"] == found["HMAC by the public key"] == "the token is not signed with a public key"
    assert found["signed by a stranger"] == found["claims exchanged"] == "the token's signature is wrong"


def test_a_known_token_ends_with_its_time_and_with_its_key() -> None:
    clock, wall = Clock(), Clock()
    wall.now = time.time()

    async def check() -> None:
        with KeySetServer(RSA) as server:
            tokens = Tokens(KeySet(server.url, clock=clock), issuer=ISSUER, audience=AUDIENCE, clock=wall)
            short, long = token(RSA, claims(exp=wall.now + 10)), token(RSA)
            await tokens.check(short)
            await tokens.check(long)
            wall.now += 41  # 30 s for clocks that differ
            with pytest.raises(Problem, match="expired"):
                await tokens.check(short)
            server.keys = [P256]
            clock.now += LEAST_PAUSE_S
            await tokens.check(token(P256, algorithm="ES256"))
            with pytest.raises(Problem, match="fits"):
                await tokens.check(long)

    asyncio.run(check())


def test_a_key_that_is_withdrawn_ends_its_tokens_though_no_others_come() -> None:
    clock = Clock()

    async def check() -> None:
        with KeySetServer(RSA) as server:
            keys = KeySet(server.url, clock=clock)
            tokens, known = Tokens(keys, issuer=ISSUER, audience=AUDIENCE), token(RSA)
            await tokens.check(known)
            server.keys = [P256]
            clock.now += REFRESH_S + 1
            await tokens.check(known)
            await until(lambda: keys.generation > 1)
            with pytest.raises(Problem, match="fits"):
                await tokens.check(known)

    asyncio.run(check())


def test_a_token_without_kid_is_checked_with_the_only_key_that_fits() -> None:
    weak = jwks.key("RSA", "weak", bits=1024)
    with KeySetServer(RSA, weak, jwks.key("RSA", "enc", use="enc"), P256) as server:
        found = checked(server, token(RSA, kid=None), token(P256, algorithm="ES256", kid=None), token(weak))
    assert [isinstance(each, Claims) for each in found] == [True, True, False]


def test_a_key_that_appears_is_fetched_but_not_more_often_than_each_10_s() -> None:
    clock = Clock()

    async def check() -> None:
        with KeySetServer(RSA) as server:
            keys = KeySet(server.url, clock=clock)
            assert await keys.find("rsa", "RS256")
            for number in range(50):
                assert await keys.find(f"unknown {number}", "RS256") is None
            assert server.requests == 1
            server.keys.append(P256)
            clock.now += LEAST_PAUSE_S
            found = await asyncio.gather(*(keys.find("p256", "ES256") for _ in range(50)))
            assert all(found)
            assert server.requests == 2

    asyncio.run(check())


@pytest.mark.parametrize("mode", ["500", "huge", "redirect", "garbage", "empty"])
def test_a_set_that_was_read_holds_while_its_server_is_broken(mode: str, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    caplog.set_level(logging.WARNING)

    async def check() -> None:
        with KeySetServer(RSA) as server:
            fresh, keys = KeySet(server.url, clock=clock), KeySet(server.url + "?token=hidden", clock=clock)
            assert await keys.find("rsa", "RS256")
            server.mode = mode
            clock.now += LEAST_PAUSE_S
            assert await keys.find("unknown", "RS256") is None
            assert await keys.find("rsa", "RS256")
            assert keys.fault
            with pytest.raises(Problem) as refused:
                await fresh.find("rsa", "RS256")
            assert (refused.value.reason, refused.value.retry_after_s) == (Reason.KEY_SET_AWAY, 10)
            asked = server.requests
            clock.now += 4
            with pytest.raises(Problem) as refused:
                await fresh.find("rsa", "RS256")
            assert (refused.value.retry_after_s, server.requests) == (6, asked)
            server.mode = "ok"
            clock.now += 6
            assert await fresh.find("rsa", "RS256")
            assert fresh.fault == ""

    asyncio.run(check())
    assert "the last set that was read holds" in caplog.text
    assert "hidden" not in caplog.text


def test_a_set_that_cannot_be_read_is_told_once_and_its_return(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    caplog.set_level(logging.INFO)

    async def check() -> None:
        with KeySetServer(RSA) as server:
            keys = KeySet(server.url, clock=clock)
            for server.mode in ("500", "500", "garbage", "ok"):
                with suppress(Problem):
                    await keys.find("rsa", "RS256")
                clock.now += LEAST_PAUSE_S

    asyncio.run(check())
    assert ["500" in text for text in caplog.messages] == [True, False, False]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO"]
    assert caplog.messages[2].endswith("was read again")


@pytest.mark.parametrize("mode", ["hang", "trickle"])
def test_a_server_that_hangs_holds_up_nobody_whose_key_is_known(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        with KeySetServer(RSA) as server:
            keys = KeySet(server.url)
            assert await keys.find("rsa", "RS256")
            server.mode = mode
            monkeypatch.setattr(key_set, "FETCH_S", 5.0)
            monkeypatch.setattr(key_set, "_SILENCE_S", 3.0)
            keys._tried_at -= LEAST_PAUSE_S
            waiting = asyncio.create_task(keys.find("unknown", "RS256"))
            await until(lambda: server.requests >= 2)
            # Without a turn of the loop in between: nothing is waited for.
            find = keys.find("rsa", "RS256")
            with pytest.raises(StopIteration) as found:
                find.send(None)
            assert found.value.value
            assert await waiting is None  # ends by itself
            # The thread of the fetch ends, too, so that another try can follow.
            await until(lambda: keys._fetching is None)
            _patient_again(monkeypatch)
            server.mode = "ok"
            server.keys.append(P256)
            keys._tried_at -= LEAST_PAUSE_S
            assert await keys.find("p256", "ES256")

    asyncio.run(check())


def test_the_certificate_of_the_server_of_keys_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = authority(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(ours.issue("keys", "127.0.0.1"))

    async def check() -> None:
        with KeySetServer(RSA, tls=tls) as server:
            keys = KeySet(server.url)
            with pytest.raises(Problem):
                await keys.find("rsa", "RS256")
            assert "certificate" in keys.fault.lower()
            monkeypatch.setenv("SSL_CERT_FILE", str(ours.file))
            assert await KeySet(server.url).find("rsa", "RS256")

    asyncio.run(check())


def test_nobody_listens_at_the_url_of_the_set() -> None:
    with KeySetServer() as server:
        url = server.url

    async def check() -> None:
        with pytest.raises(Problem) as refused:
            await KeySet(url).find("rsa", "RS256")
        assert refused.value.reason is Reason.KEY_SET_AWAY
        assert refused.value.reason.status == 503

    asyncio.run(check())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_no_text_and_no_change_of_a_good_token_is_accepted(server: KeySetServer, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(GOOD) - 1))
    changed = GOOD[:at] + data.draw(st.text(max_size=3)) + GOOD[at + data.draw(st.integers(0, 3)) :]
    sent = [data.draw(st.text()), changed, ".".join(data.draw(st.lists(st.text("eyJ0-_=", max_size=8), max_size=4)))]
    found = checked(server, *(each for each in sent if each != GOOD))
    accepted = [each for each in found if isinstance(each, Claims)]
    # The last character of a signature has bits that belong to nothing.
    assert not accepted or (changed[:-1] == GOOD[:-1] and len(changed) == len(GOOD))
