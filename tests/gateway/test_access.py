"""Who may send what, through a running `infertool gateway` on the embedded broker."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from infertool.gateway.key_file import KeyFile
from infertool.gateway.keys import ApiKey
from infertool.gateway.model_queue import LEAST_AT_BROKER
from tests.gateway import jwks
from tests.gateway.jwks import AUDIENCE, ISSUER, KeySetServer, claims, raw_token, token
from tests.gateway.test_keys import NOW, made
from tests.support.certificates import authority
from tests.support.embedded import EmbeddedBroker
from tests.support.ports import free_port
from tests.support.responder import Responder
from tests.support.running import PATIENT_GATEWAY, Running, infertool

LONG = 120.0
RSA, STRANGER = jwks.key("RSA", "rsa"), jwks.key("RSA", "stranger")


class Gateway:
    """A gateway process, and a client of it."""

    def __init__(
        self, folder: Path, broker: str, queue: str = "access.default", ca_file: str = "", **settings: str
    ) -> None:
        port = free_port()
        given = {
            "BROKER__URL": broker,
            "BROKER__QUEUE": queue,
            "GATEWAY__LISTEN": f"127.0.0.1:{port}",
            "GATEWAY__STATE_DIR": str(folder / "state"),
        } | {f"GATEWAY__{name.upper()}": value for name, value in settings.items()}
        self.process = Running(
            folder / "log",
            "--debug",
            "gateway",
            **PATIENT_GATEWAY,
            **{f"INFERTOOL_{name}": value for name, value in given.items()},
        )
        self.tls: ssl.SSLContext | None = None
        scheme = "http"
        if ca_file:
            scheme, self.tls = "https", ssl.create_default_context(cafile=ca_file)
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.client = httpx.Client(base_url=self.url, timeout=LONG, verify=self.tls or False)

    def __enter__(self) -> Self:
        deadline = time.monotonic() + LONG
        while not self._ready():
            assert self.process.process.poll() is None, self.process.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.process.log.read_text()[-3000:]
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.process.kill()

    def infer(self, key: str = "", *, bearer: str = "", body: Any = 1, **headers: str) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key:
            sent["X-API-Key"] = key
        if bearer:
            sent["Authorization"] = f"Bearer {bearer}"
        return self.client.post("/v1/infer", json=body, headers=sent)

    def refusal(self, *arguments: Any, **sent: Any) -> tuple[int, str]:
        """Return status and reason."""
        answer = self.infer(*arguments, **sent)
        return answer.status_code, answer.json().get("reason", "")

    def _ready(self) -> bool:
        try:
            return self.client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    found = EmbeddedBroker().start()
    try:
        yield found.url
    finally:
        found.stop()


@pytest.fixture(scope="module")
def _model(broker: str) -> Iterator[None]:
    with Responder(broker, "access.default"), Responder(broker, "access.other"):
        yield


def until(condition: Any) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.usefixtures("_model")
def test_keys_have_their_rights_and_change_while_the_gateway_runs(broker: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    limited, limited_key = made("limited", models=("default",), classes=("batch",))
    free, free_key = made("free", rate="2/h")
    with KeyFile(path).changing() as found:
        found += [limited, free]
    models = json.dumps({"default": "access.default", "other": "access.other"})
    with Gateway(tmp_path, broker, keys_file=str(path), models=models) as gateway:
        assert gateway.refusal(infertool_model="default") == (401, "unauthenticated")
        assert gateway.refusal(limited_key[:-1], infertool_model="default") == (401, "invalid_credentials")
        assert gateway.refusal(limited_key, infertool_model="other") == (403, "model_forbidden")
        asked = {"infertool_model": "default"}
        assert gateway.refusal(limited_key, **asked, infertool_class="interactive") == (403, "class_forbidden")
        answer = gateway.infer(limited_key, **asked, body={"a": 1})
        assert (answer.status_code, answer.json()["class"]) == (200, "batch")
        assert answer.json()["prediction"] == {"a": 1}
        # What one client sent is not another's to see.
        event = answer.json()["event_id"]
        assert gateway.client.get(f"/v1/requests/{event}", headers={"X-API-Key": limited_key}).status_code == 200
        assert gateway.client.get(f"/v1/requests/{event}", headers={"X-API-Key": free_key}).status_code == 404
        assert gateway.client.get(f"/v1/requests/{event}").status_code == 401

        answers = [gateway.infer(free_key, infertool_model="other") for _ in range(3)]
        assert [each.status_code for each in answers] == [200, 200, 429]
        assert [each.headers["X-RateLimit-Remaining"] for each in answers] == ["1", "0", "0"]
        assert answers[0].headers["RateLimit-Policy"].startswith('"rate";q=2;w=3600')
        assert answers[2].json()["reason"] == "rate_limited"
        assert 1000 < int(answers[2].headers["Retry-After"]) <= 1800

        commands = ("--keys-file", str(path), "-o", "json")
        added = json.loads(infertool("gateway", "keys", "add", "late", *commands).stdout)["key"]
        until(lambda: gateway.infer(added, **asked).status_code == 200)
        infertool("gateway", "keys", "revoke", "late", *commands)
        until(lambda: gateway.refusal(added, **asked) == (401, "invalid_credentials"))
        path.write_text("{")
        said: list[int] = []
        while "the last keys that could be read hold" not in gateway.process.log.read_text():
            said.append(gateway.infer(limited_key, **asked).status_code)
        assert set(said) == {200}
        assert gateway.infer(limited_key, **asked).status_code == 200
        log = gateway.process.log.read_text()
    for key in (limited_key, free_key, added):
        assert key.rpartition("_")[2] not in log


@pytest.mark.long
@pytest.mark.usefixtures("_model")
def test_tokens_and_a_key_server_that_hangs(broker: str, tmp_path: Path) -> None:
    with KeySetServer(RSA) as server:
        settings = {"jwks_url": server.url, "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}
        with Gateway(tmp_path, broker, **settings) as gateway:
            server.mode = "500"
            answer = gateway.infer(bearer=token(RSA))
            assert (answer.status_code, answer.json()["reason"]) == (503, "key_set_away")
            assert 1 <= int(answer.headers["Retry-After"]) <= 10
            server.mode = "ok"
            until(lambda: gateway.infer(bearer=token(RSA)).status_code == 200)
            for bad in (
                raw_token({"alg": "none"}, claims()),
                token(RSA, claims(exp=time.time() - 60)),
                token(RSA, claims(nbf=time.time() + 60_000)),
                token(RSA, claims(aud="other")),
                token(STRANGER, kid="rsa"),
                "x" * 7000,
            ):
                answer = gateway.infer(bearer=bad)
                assert (answer.status_code, answer.json()["reason"]) == (401, "invalid_credentials")
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            forbidden = token(RSA, claims(infertool_classes=["batch"]))
            assert gateway.refusal(bearer=forbidden, infertool_class="interactive") == (403, "class_forbidden")

            server.mode = "hang"
            asked = server.requests

            def ask_as_a_stranger() -> set[tuple[int, str]]:
                """Send unknown keys until the set is fetched again, which is at most each 10 s."""
                found = set()
                while server.requests == asked:
                    found.add(gateway.refusal(bearer=token(STRANGER)))
                return found

            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(ask_as_a_stranger)
                until(lambda: server.requests > asked)
                meanwhile = []
                while not waiting.done():
                    meanwhile.append(gateway.infer(bearer=token(RSA)).status_code)
                # So many from one address are limited.
                assert waiting.result() <= {(401, "invalid_credentials"), (429, "too_many_failures")}
            assert meanwhile
            assert set(meanwhile) == {200}
        log = gateway.process.log.read_text()
    assert token(RSA).split(".")[0] not in log
    assert forbidden.split(".")[2] not in log


@pytest.mark.usefixtures("_model")
@pytest.mark.parametrize("trusted", [True, False])
def test_a_forged_forwarded_for_changes_nothing(broker: str, tmp_path: Path, trusted: bool) -> None:
    proxies = {"trusted_proxies": '["127.0.0.0/8", "10.0.0.0/8"]'} if trusted else {}
    with Gateway(tmp_path, broker, rate="2/h", **proxies) as gateway:
        # A proxy appends the address that it saw to whatever the client wrote.
        forged = ["", "1.2.3.4, ", "10.0.0.1, ", "garbage, ", "::1, "]
        said = [gateway.infer(X_Forwarded_For=f"{text}198.51.100.7").status_code for text in forged]
        assert said == [200, 200, 429, 429, 429]
        other = [gateway.infer(X_Forwarded_For=address).status_code for address in ("198.51.100.8", "[2001:db8::1]:99")]
        assert other == ([200, 200] if trusted else [429, 429])
        neighbours = [gateway.infer(X_Forwarded_For=f"2001:db8::{number}").status_code for number in range(2, 4)]
        assert neighbours == ([200, 429] if trusted else [429, 429])


@pytest.mark.usefixtures("_model")
def test_certificates_name_clients_whose_rights_the_keys_file_gives(broker: str, tmp_path: Path) -> None:
    ours, strange = authority(tmp_path), authority(tmp_path, "stranger")
    limited = ApiKey(
        id="aaaaaaaaaa", name="billing", created=NOW, certificate="billing", classes=("batch",), rate="1/h"
    )
    with KeyFile(tmp_path / "keys.json").changing() as found:
        found.append(limited)
    files = {
        "tls_cert_file": str(ours.issue("gateway", "127.0.0.1")), "tls_client_ca_file": str(ours.file),
        "keys_file": str(tmp_path / "keys.json"),
    }  # fmt: skip
    with Gateway(tmp_path, broker, ca_file=str(ours.file), **files) as gateway:

        def ask(certificate: Path | None, **headers: str) -> tuple[int, str]:
            context = ssl.create_default_context(cafile=str(ours.file))
            if certificate:
                context.load_cert_chain(certificate)
            with httpx.Client(base_url=gateway.url, verify=context, timeout=LONG) as client:
                answer = client.post("/v1/infer", json=1, headers=headers)
                return answer.status_code, answer.json().get("reason") or answer.json()["class"]

        named = {"Infertool-Class": "interactive"}
        billing, other = ours.issue("billing"), ours.issue("other")
        assert ask(None) == (401, "unauthenticated")
        assert ask(billing, **named) == (403, "class_forbidden")
        assert ask(billing) == (200, "batch")
        assert ask(billing) == (429, "rate_limited")
        assert ask(other, **named) == (200, "interactive")
        assert ask(other, **{"X-API-Key": "ik_wrong"}) == (401, "invalid_credentials")
        with pytest.raises(httpx.TransportError):
            ask(strange.issue("billing"))


def test_a_greedy_key_takes_nothing_from_another(broker: str, tmp_path: Path) -> None:
    greedy, greedy_key = made("greedy", max_in_flight=5)
    modest, modest_key = made("modest")
    with KeyFile(tmp_path / "keys.json").changing() as found:
        found += [greedy, modest]
    done = threading.Event()
    statuses: list[tuple[int, str]] = []

    def flood() -> None:
        while not done.is_set():
            statuses.append(gateway.refusal(greedy_key))

    with (
        Responder(broker, "access.shared"),
        Gateway(tmp_path, broker, "access.shared", keys_file=str(tmp_path / "keys.json")) as gateway,
        ThreadPoolExecutor(20) as pool,
    ):
        floods = [pool.submit(flood) for _ in range(20)]
        try:
            until(lambda: (429, "too_many_in_flight") in statuses)
            assert [gateway.infer(modest_key).status_code for _ in range(30)] == [200] * 30
        finally:
            done.set()
        for each in floods:
            each.result()
        assert {status for status, _ in statuses} == {200, 429}
        assert {reason for status, reason in statuses if status == 429} == {"too_many_in_flight"}
        # All has ended: nothing is counted any more.
        with ThreadPoolExecutor(5) as few:
            assert list(few.map(lambda _: gateway.infer(greedy_key).status_code, range(5))) == [200] * 5


def test_a_key_with_a_long_queue_does_not_keep_another_waiting(broker: str, tmp_path: Path) -> None:
    greedy, greedy_key = made("greedy")
    modest, modest_key = made("modest")
    with KeyFile(tmp_path / "keys.json").changing() as found:
        found += [greedy, modest]
    with Gateway(tmp_path, broker, "access.fair", keys_file=str(tmp_path / "keys.json")) as gateway:

        def queued(key: str, count: int) -> list[str]:
            answers = [gateway.infer(key, prefer="respond-async") for _ in range(count)]
            assert [each.status_code for each in answers] == [202] * count
            return [each.json()["event_id"] for each in answers]

        many, few = queued(greedy_key, 60), queued(modest_key, 3)
        with Responder(broker, "access.fair") as model:
            order = [message.headers["event_id"] for message in model.wait_for(63)]
    assert sorted(order) == sorted(many + few)
    # In turns after those that the broker had already, and not behind all 60.
    assert max(order.index(each) for each in few) < LEAST_AT_BROKER + 2 * len(few)


def test_what_was_accepted_before_a_restart_counts_until_it_ends(broker: str, tmp_path: Path) -> None:
    entry, key = made("a", max_in_flight=3)
    with KeyFile(tmp_path / "keys.json").changing() as found:
        found.append(entry)
    settings = {"keys_file": str(tmp_path / "keys.json"), "name": "one"}
    queued = {"prefer": "respond-async"}
    with Gateway(tmp_path, broker, "access.later", **settings) as gateway:
        assert [gateway.infer(key, **queued).status_code for _ in range(4)] == [202, 202, 202, 429]
    with Gateway(tmp_path, broker, "access.later", **settings) as gateway:
        assert gateway.refusal(key, **queued) == (429, "too_many_in_flight")
        with Responder(broker, "access.later"):
            until(lambda: gateway.infer(key, **queued).status_code == 202)
            until(lambda: gateway.infer(key).status_code == 200)
        # The model is away again, and all three places are there.
        assert [gateway.infer(key, **queued).status_code for _ in range(4)] == [202, 202, 202, 429]
