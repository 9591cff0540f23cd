"""Broken set-ups: doctor names the fault of each, skips what it makes senseless, and says what to do."""

from __future__ import annotations

import datetime as dt
import re
import socket
import ssl
import threading
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from infertool.phoenix.frames import Frame
from tests.cli.doctor.conftest import Doctor
from tests.conftest import FIXTURES
from tests.support import activemq
from tests.support.brokers import new_queue
from tests.support.certificates import DAY, authority
from tests.support.embedded import EmbeddedBroker
from tests.support.hub import HubProcess
from tests.support.phoenix_fake import Peer, fake_phoenix, polite, raw_server, read_request
from tests.support.strictmq import DEAD, EVENTS, StrictActiveMQ
from tests.support.tlsbroker import running

ADMIN = {"broker__user": "admin", "broker__password": "admin"}


def strict_settings(broker: StrictActiveMQ, user: str) -> dict[Any, Any]:
    queues = {"broker__queue": f"{EVENTS}.in", "deadletter__queue": f"{DEAD}.out"}
    login = {"broker__user": user, "broker__password": user, "broker__receipt_timeout_s": "60"}
    return {"broker__url": broker.url, **login, **queues}


@pytest.mark.activemq
def test_a_wrong_password(doctor: Doctor, strict: StrictActiveMQ) -> None:
    found = doctor("--only", "broker", **{**strict_settings(strict, "worker"), "broker__password": "Wrong-one"})
    assert (found.code, found.named("fail")) == (1, ["broker.login"])
    login = found.of("broker.login")
    assert "refused the login" in login["value"]
    assert login["hint"].startswith("check broker.user and broker.password")
    assert login["docs"] == "docs/doctor.md#broker-login"
    assert found.of("broker.queue")["value"] == f"not checked: broker.login 127.0.0.1:{strict.stomp_port} failed"


@pytest.mark.activemq
@pytest.mark.parametrize(
    ("user", "failing", "may_consume"),
    [
        ("worker", [], True),
        ("reader", ["broker.dlq", "broker.round_trip"], True),
        ("nodead", ["broker.dlq"], True),
        ("outsider", ["broker.queue", "broker.dlq", "broker.round_trip"], False),
    ],
)
def test_rights_that_a_user_lacks(
    doctor: Doctor, strict: StrictActiveMQ, user: str, failing: list[str], may_consume: bool
) -> None:
    # Without the plugin the broker does not tell which queues there are.
    found = doctor("--only", "broker", **strict_settings(strict, user))
    assert (found.named("fail"), found.code) == (failing, 1 if failing else 0)
    assert ("may consume" in found.of("broker.queue")["value"]) == may_consume
    if "broker.dlq" in failing:
        assert f"may not send to /queue/{DEAD}.out: User {user} is not authorized" in found.of("broker.dlq")["value"]
        assert found.of("broker.dlq")["hint"].startswith("give the user")


@pytest.mark.activemq
def test_no_statistics_plugin(doctor: Doctor, strict: StrictActiveMQ) -> None:
    found = doctor("--only", "broker", **strict_settings(strict, "worker"))
    assert (found.code, found.of("broker.depth")["status"]) == (0, "warn")
    assert "does not tell the depth" in found.of("broker.depth")["value"]
    assert "statisticsBrokerPlugin" in found.of("broker.depth")["hint"]
    assert doctor("--only", "broker", "--strict", **strict_settings(strict, "worker")).code == 1


@pytest.mark.activemq
def test_a_certificate_that_has_expired(doctor: Doctor, tmp_path: Path) -> None:
    issuer = authority(tmp_path)
    expired = issuer.issue("server", "127.0.0.1", ends_in=-DAY / 2)
    with running(tmp_path / "broker", expired, issuer) as broker:
        url = f"stomp+ssl://127.0.0.1:{broker.port('stomp+ssl')}"
        found = doctor("--only", "broker", broker__url=url, broker__tls_ca_file=str(issuer.file), **ADMIN)
    assert (found.code, found.named("fail")) == (1, ["broker.tls"])
    tls = found.of("broker.tls")
    assert "certificate has expired" in tls["value"]
    assert re.search(r"expired 12(\.\d)? h ago", tls["value"])
    assert -46_800 < tls["number"] < -39_600
    assert "renewed" in tls["hint"]
    assert found.of("broker.login")["status"] == "skip"


def test_a_certificate_that_ends_soon_or_is_not_checked(doctor: Doctor, tmp_path: Path) -> None:
    issuer = authority(tmp_path)
    context = _server_context(issuer.issue("server", "127.0.0.1", ends_in=3 * DAY + dt.timedelta(hours=1)))
    with fake_phoenix(tls=context) as server:
        url = server.url.replace("ws:", "wss:")
        found = doctor("--only", "phoenix", phoenix__url=url, phoenix__tls_ca_file=str(issuer.file))
        unchecked = doctor("--only", "phoenix.tls", phoenix__url=url, phoenix__tls_verify="false")
        untrusted = doctor("--only", "phoenix.tls", phoenix__url=url)
    assert (unchecked.code, unchecked.named("warn")) == (0, ["phoenix.tls"])
    assert unchecked.of("phoenix.tls")["value"] == "TLSv1.3, expires in 3 days; the certificate is not checked"
    assert (untrusted.code, untrusted.named("fail")) == (1, ["phoenix.tls"])
    assert "is not accepted" in untrusted.of("phoenix.tls")["value"]
    assert (found.code, found.of("phoenix.tls")["status"]) == (0, "warn")
    assert found.of("phoenix.tls")["value"] == "TLSv1.3, expires in 3 days"


def _server_context(pem: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def test_a_channel_that_answers_nothing(doctor: Doctor) -> None:
    def only_heartbeats(peer: Any, frame: Any) -> None:
        if frame.topic == "phoenix":
            peer.send(None, frame.ref, "phoenix", "phx_reply", {"response": {}, "status": "ok"})

    with fake_phoenix(only_heartbeats) as server:
        names = "phoenix.join,phoenix.confirm"
        found = doctor("--only", names, phoenix__url=server.url, phoenix__connect_timeout_s="10")
    assert found.named("fail") == ["phoenix.join"]
    assert "within 10 s" in found.of("phoenix.join")["value"]
    assert found.of("phoenix.confirm")["value"] == "not checked: phoenix.join failed"


@pytest.mark.long
@pytest.mark.parametrize("event", ["new_result", "inference_failed"])
@pytest.mark.parametrize("crashes", [True, False], ids=["crashes", "refuses"])
def test_a_channel_without_a_clause(doctor: Doctor, event: str, crashes: bool) -> None:
    def channel(peer: Peer, frame: Frame) -> None:
        if frame.event != event:
            polite(peer, frame)
        elif crashes:
            peer.crash(frame)
        else:
            peer.reply(frame, "error", {"reason": "unmatched topic"})

    with fake_phoenix(channel) as server:
        found = doctor(
            "--only", "phoenix", "--push", phoenix__url=server.url, phoenix__connect_timeout_s="15",
            phoenix__push_timeout_s="2", phoenix__confirm="reply",
        )  # fmt: skip
    told = found.of("phoenix.confirm")
    assert found.named("fail") == ["phoenix.confirm"], found.document
    assert event in told["value"]
    assert f"handle_in for {event}" in told["hint"]


def test_a_server_that_answers_no_heartbeat(doctor: Doctor) -> None:
    with fake_phoenix(lambda _peer, _frame: None) as server:
        found = doctor("--only", "phoenix", phoenix__url=server.url, phoenix__connect_timeout_s="10")
    assert found.named("fail") == ["phoenix.socket"]
    assert "a heartbeat was not answered within 10 s" in found.of("phoenix.socket")["value"]


@pytest.mark.parametrize(
    ("model", "failing", "value"),
    [
        ("import_error.py:predict", "model.load", "cannot be imported"),
        ("warm_up_failure.py:Model", "model.warm_up", "failed its warm-up"),
        ("import_exits.py:predict", "model.load", "cannot be imported"),
        ("not_there.py:predict", "model.load", "no file"),
    ],
)
def test_a_model_that_cannot_start(doctor: Doctor, model: str, failing: str, value: str) -> None:
    found = doctor("--only", "model", model__spec=str(FIXTURES / "models" / model))
    assert (found.code, found.named("fail")) == (1, [failing])
    assert value in found.of(failing)["value"]
    assert found.of("model.sample")["value"] == f"not checked: {failing} failed"


def test_a_model_that_crashes_its_process_or_needs_another_event(doctor: Doctor, tmp_path: Path) -> None:
    model = tmp_path / "mine.py"
    model.write_text(
        "import os\n\n\ndef crash(event):\n    os.abort()\n\n\ndef picky(event):\n    return event['wanted']\n"
    )
    found = doctor("--only", "model", model__spec=f"{model}:crash")
    assert (found.code, "killed by SIGABRT" in found.of("model.sample")["value"]) == (1, True)
    found = doctor("--only", "model", model__spec=f"{model}:picky")
    assert (found.code, found.named("warn")) == (0, ["model.sample"])
    assert "KeyError" in found.of("model.sample")["value"]
    assert "--sample" in found.of("model.sample")["hint"]
    found = doctor("--only", "model", "--sample", '{"wanted": [1, 2]}', model__spec=f"{model}:picky")
    assert found.of("model.sample")["value"].startswith("[1,2] in ")
    found = doctor("--only", "model", "--sample", '{"other": 1}', model__spec=f"{model}:picky")
    assert (found.code, found.named("fail")) == (1, ["model.sample"])


def test_a_clock_that_is_off(doctor: Doctor) -> None:
    def an_hour_ahead(connection: socket.socket) -> None:
        read_request(connection)
        date = formatdate(time.time() + 3600, usegmt=True)
        connection.sendall(f"HTTP/1.1 404 Not Found\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n".encode())

    with raw_server(an_hour_ahead) as port:
        url = f"ws://127.0.0.1:{port}/socket/websocket"
        found = doctor("--only", "environment", phoenix__url=url, broker__url="stomp://127.0.0.1:1")
    assert (found.code, found.named("fail")) == (1, ["environment.clock"])
    clock = found.of("environment.clock")
    assert re.match(r"(60|59\.\d) min behind Phoenix \(127\.0\.0\.1\)", clock["value"])
    assert 3500 < clock["number"] < 3700


def test_another_service_on_the_port(doctor: Doctor) -> None:
    def http(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with raw_server(http) as port:
        url = f"stomp://127.0.0.1:{port}"
        found = doctor("--only", "broker", broker__url=url)
        assert (found.code, found.named("fail")) == (1, ["broker.login"])
        assert "is an HTTP server" in found.of("broker.login")["value"]
    with raw_server(lambda connection: connection.sendall(b"AMQP\0\0\x09\1")) as port:
        found = doctor("--only", "phoenix", phoenix__url=f"ws://127.0.0.1:{port}/socket/websocket")
    assert (found.code, found.named("fail")) == (1, ["phoenix.socket"])
    assert "speaks AMQP, not HTTP" in found.of("phoenix.socket")["value"]


def test_a_host_of_several_that_is_down(doctor: Doctor, embedded_broker: EmbeddedBroker) -> None:
    url = f"stomp://127.0.0.1:1,127.0.0.1:{embedded_broker.stomp_port}"
    found = doctor("--only", "broker", broker__url=url)
    assert (found.code, found.named("fail")) == (1, ["broker.tcp"])
    assert [each["status"] for each in found.document["checks"] if each["check"] == "broker.login"] == ["skip", "ok"]
    assert found.of("broker.round_trip")["number"] > 0


def test_settings_that_cannot_be_loaded(doctor: Doctor) -> None:
    found = doctor(broker__heartbeat_s="often")
    assert (found.code, found.named("fail")) == (1, ["settings.load"])
    assert found.named("ok") == ["environment.python", "environment.files"]
    assert "INFERTOOL_BROKER__HEARTBEAT_S: broker.heartbeat_s must be a number" in found.of("settings.load")["value"]
    found = doctor("--only", "settings", broker__queue="a", deadletter__queue="a")
    assert found.named("fail") == ["settings.consistent"]


def test_wait_repeats_until_nothing_fails(doctor: Doctor) -> None:
    looks = []

    def late(connection: socket.socket) -> None:
        read_request(connection)
        looks.append(1)
        # The first round gets a server that is far ahead.
        ahead_s = 0 if len(looks) > 1 else 3600
        date = formatdate(time.time() + ahead_s, usegmt=True)
        connection.sendall(f"HTTP/1.1 404 Not Found\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n".encode())

    with raw_server(late) as port:
        url = f"ws://127.0.0.1:{port}/socket/websocket"
        found = doctor("--only", "environment", "--wait", "120s", phoenix__url=url)
    assert (found.code, found.of("environment.clock")["status"], len(looks)) == (0, "ok", 2)


def test_a_server_that_says_nothing_does_not_hang_it(doctor: Doctor) -> None:
    done = threading.Event()

    def silent(_connection: socket.socket) -> None:
        done.wait(300)

    with raw_server(silent) as port:
        found = doctor(
            "--only", "broker,phoenix", broker__url=f"stomp://127.0.0.1:{port}", broker__connect_timeout_s="1",
            phoenix__url=f"ws://127.0.0.1:{port}/socket/websocket", phoenix__connect_timeout_s="1",
        )  # fmt: skip
        done.set()
    assert found.named("fail") == ["broker.login", "phoenix.socket"]
    assert "did not answer" in found.of("broker.login")["value"]


@pytest.mark.activemq
def test_nothing_is_taken_and_nothing_is_left(doctor: Doctor, activemq: activemq.ActiveMQ, hub: HubProcess) -> None:
    """A queue that is not there is not made; the messages of one that is stay where they are, and as they are."""
    missing = new_queue()
    settings = {"broker__url": activemq.url, **ADMIN, "broker__queue": missing, "deadletter__queue": f"{missing}.dlq"}
    for _ in range(2):
        found = doctor("--only", "broker", **settings)
        assert f"there is no queue {missing} yet" in found.of("broker.queue")["value"]
        assert f"there is no queue {missing}.dlq yet" in found.of("broker.dlq")["value"]
        assert (found.code, found.named("fail")) == (0, [])
