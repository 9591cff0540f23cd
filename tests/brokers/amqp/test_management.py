"""The management API: what it tells of a queue, and what is said when it does not answer."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from urllib3.exceptions import ProtocolError

from infertool.brokers.amqp import management as module
from infertool.brokers.amqp.management import Management, facts
from infertool.brokers.port import Broker, Depth
from infertool.errors import RefusedError, ServerError, SettingsError, UnreachableError
from infertool.secret import Secret
from infertool.settings.broker import BrokerSettings
from tests.brokers.amqp.conftest import Open, facts_of
from tests.support.certificates import authority
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ
from tests.support.rawamqp import TIMEOUT_S, RawAmqp, eventually


def client(url: str, user: str = "admin", password: str = "admin", **settings: Any) -> Management:
    return Management(BrokerSettings(**settings), url, user=user, password=Secret(password), vhost="/")


@pytest.mark.parametrize(
    ("version", "arguments", "policy", "limit"),
    [
        (3, {}, {}, None),
        (4, {}, {}, 20),
        (3, {"x-delivery-limit": 5}, {}, 5),
        (3, {}, {"delivery-limit": 3}, 3),
        (3, {"x-delivery-limit": 5}, {"delivery-limit": 3}, 3),
        (4, {"x-delivery-limit": -1}, {}, None),
        (4, {"x-delivery-limit": -1}, {"delivery-limit": 7}, 7),
        (3, {"x-delivery-limit": 0}, {}, 0),
        (4, {"x-delivery-limit": "5"}, {"delivery-limit": True}, 20),
    ],
)
def test_the_delivery_limit(version: int, arguments: dict[str, Any], policy: dict[str, Any], limit: int | None) -> None:
    document = {"type": "quorum", "arguments": arguments, "effective_policy_definition": policy}
    assert facts(document, version).delivery_limit == limit


def test_a_classic_queue_has_no_delivery_limit() -> None:
    assert facts({"type": "classic", "arguments": {"x-delivery-limit": 5}}, 4).delivery_limit is None


def test_a_document_of_something_else_tells_nothing() -> None:
    odd = {"type": 3, "arguments": [], "messages_ready": "7", "consumers": True, "message_stats": {"publish": -1}}
    found = facts(odd, 4)
    assert (found.type, found.arguments, found.ready, found.consumers, found.published) == ("", {}, None, None, None)


@pytest.mark.parametrize("url", ["localhost:15672", "amqp://localhost", "http://", "http://a:x", "http://u:p@a:1", ""])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        client(url)
    assert caught.value.key == "broker.management_url"
    assert "u:p" not in str(caught.value)


@pytest.mark.rabbitmq
@pytest.mark.parametrize("arguments", [{}, {"x-queue-type": "quorum", "x-delivery-limit": 5}])
def test_a_queue(raw: RawAmqp, management: Management, arguments: dict[str, Any]) -> None:
    queue = raw.queue(arguments)
    with raw.channel() as channel:
        # RabbitMQ may lose the figures of a channel that closes before they are sampled.
        for body in (b"1", b"2", b"3"):
            channel.basic_publish("", queue, body)
        while not channel.basic_get(queue)[0]:
            pass
        channel.basic_consume(queue, lambda *_: None)
        channel.connection.process_data_events(0)

        found = facts_of(management, queue)

        def sampled() -> bool:
            channel.connection.process_data_events(0)
            nonlocal found
            found = facts_of(management, queue)
            return found.unacked == found.published == 3 and bool(found.consumers) and found.acked is not None

        # Its figures are samples, each 5 s, and not all are there from the first on.
        eventually(sampled)
    assert found.type == arguments.get("x-queue-type", "classic")
    assert found.arguments == arguments
    assert (found.durable, found.ready, found.acked) == (True, 0, 0)
    # Whoever got from a quorum queue counts as a consumer until its channel ends.
    assert found.consumers in {1, 2}
    assert found.delivery_limit == arguments.get("x-delivery-limit")
    assert management.queue(raw.name()) is None


@pytest.mark.rabbitmq
def test_the_oldest_message_of_a_classic_queue(raw: RawAmqp, management: Management) -> None:
    queue = raw.queue()
    raw.send(queue, b"1", b"2", timestamp=1_700_000_000)
    eventually(lambda: facts_of(management, queue).oldest_at == 1_700_000_000)


@pytest.mark.rabbitmq
def test_a_wrong_password(rabbitmq: RabbitMQ) -> None:
    with pytest.raises(RefusedError, match="refused: 401") as caught:
        client(rabbitmq.management_url, password="wrong-one").queue("q")
    assert "tag `management`" in caught.value.advice
    assert "wrong-one" not in str(caught.value)


@pytest.mark.rabbitmq
def test_a_login_of_other_letters(rabbitmq: RabbitMQ) -> None:
    user, password = "jürgen", "pä:ss€"
    with rabbitmq.admin.user(user, password, tags="management"):
        assert client(rabbitmq.management_url, user=user, password=password).queue("none") is None


@pytest.mark.rabbitmq
def test_a_user_without_the_tag(rabbitmq: RabbitMQ) -> None:
    with (
        rabbitmq.admin.user("untagged", "secret", rights=()),
        pytest.raises(RefusedError, match="tag `management`"),
    ):
        client(rabbitmq.management_url, user="untagged", password="secret").queue("q")


@pytest.mark.rabbitmq
def test_the_port_of_amqp(rabbitmq: RabbitMQ) -> None:
    with pytest.raises(UnreachableError, match="speaks AMQP, not HTTP"):
        client(f"http://127.0.0.1:{rabbitmq.amqp_port}").queue("q")


def test_nothing_listens() -> None:
    with pytest.raises(UnreachableError, match="Connection refused") as caught:
        client(f"http://127.0.0.1:{free_port()}").queue("q")
    assert "rabbitmq_management" in caught.value.advice


@contextmanager
def answering(*pieces: bytes, forever: bytes = b"", certificate: Path | None = None) -> Iterator[str]:
    """Run a server that answers each connection's first request with these bytes, over TLS with a `certificate`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificate:
        context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                try:
                    connection = context.wrap_socket(connection, server_side=True) if certificate else connection
                except OSError:
                    connection.close()
                    continue
                with connection:
                    connection.recv(65536)
                    try:
                        for piece in pieces:
                            connection.sendall(piece)
                        while forever and not ended.is_set():
                            connection.sendall(forever)
                        while not pieces and not ended.is_set() and connection.recv(1):
                            pass
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http{'s' if certificate else ''}://127.0.0.1:{listener.getsockname()[1]}"
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def of(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (of("200 OK", b"<html>"), UnreachableError, "is no management API: <html>"),
        (of("200 OK", b"[]"), UnreachableError, "is no management API"),
        (of("404 Not Found", b"nginx"), RefusedError, "404 nginx"),
        (of("302 Found", b""), RefusedError, "302"),
        (of("500 Oops", b"x" * 1000), RefusedError, "500 x{200}[^x]"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort", UnreachableError, "management API"),
        (b"", UnreachableError, "no whole answer within"),
    ],
)
def test_what_is_no_answer(monkeypatch: pytest.MonkeyPatch, answer: bytes, error: type[ServerError], text: str) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_S", 1.0)
    monkeypatch.setattr("infertool.net.identify._PROBE_S", 0.1)
    with answering(*([answer] if answer else [])) as url, pytest.raises(error, match=text) as caught:
        client(url).queue("q")
    assert caught.value.advice


def test_tls_settings_are_those_of_the_broker(tmp_path: Path) -> None:
    ours, other = authority(tmp_path), authority(tmp_path, "other")
    body = json.dumps({"rabbitmq_version": "3.10.8", "type": "classic"}).encode()
    with answering(of("200 OK", body), certificate=ours.issue("server", "127.0.0.1")) as url:
        found = client(url, tls_ca_file=str(ours.file)).queue("q")
        assert found is not None
        assert found.type == "classic"
        for settings in ({}, {"tls_ca_file": str(other.file)}):
            with pytest.raises(UnreachableError, match=r"certificate .* not accepted") as caught:
                client(url, **settings).queue("q")
            assert "broker.tls_ca_file" in caught.value.advice
        with pytest.raises(UnreachableError):
            client(url.replace("https", "http")).queue("q")
    with answering(of("200 OK", body)) as url, pytest.raises(UnreachableError, match="TLS"):
        client(url.replace("http", "https")).queue("q")
    with pytest.raises(SettingsError):
        client("https://127.0.0.1:1", tls_ca_file=str(tmp_path / "none.pem"))


def test_an_answer_without_an_end_is_cut_off() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n"
    with answering(head, forever=b" " * 65536) as url, pytest.raises(UnreachableError, match="no whole answer"):
        client(url).queue("q")


def test_a_path_before_the_api_and_odd_names_are_part_of_the_request() -> None:
    body = json.dumps({"rabbitmq_version": "3.10.8", "type": "classic"}).encode()
    with answering(of("200 OK", body)) as url:
        found = client(f"{url}/rabbit/").queue("a/b ü?")
    assert found is not None
    assert found.type == "classic"


@pytest.mark.rabbitmq
def test_a_depth_with_and_without_the_management_api(raw: RawAmqp, open_broker: Open) -> None:
    queue = raw.queue()
    with_api, without = open_broker(), open_broker(asked=False)
    with raw.channel() as channel:
        # Not on a channel that ends at once: RabbitMQ collects its counts each 5 s, and each 2 minutes deletes those of
        # channels that have ended, collected or not (rabbit_core_metrics_gc).
        channel.confirm_delivery()
        for body in (b"1", b"2", b"3"):
            channel.basic_publish("", queue, body)
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume(queue, lambda *_: None)

        def measured(broker: Broker, depth: Depth) -> bool:
            # Without that the connection has no heartbeats.
            channel.connection.process_data_events(0)
            return broker.measure(queue, TIMEOUT_S) == depth

        eventually(lambda: measured(without, Depth(size=2, consumers=1)))
        eventually(lambda: measured(with_api, Depth(3, 1, 1, 3, 0)))
    # The API's last sample may still say that one is unacked.
    eventually(lambda: with_api.measure(queue, TIMEOUT_S) == Depth(3, None, 0, 3, 0))
    assert with_api.measure(raw.name(), TIMEOUT_S) is None


@pytest.mark.rabbitmq
def test_a_depth_does_not_wait_for_an_api_that_does_not_answer(
    raw: RawAmqp, open_broker: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = raw.queue()
    asked: list[str] = []
    broker = open_broker(management_url=f"http://127.0.0.1:{free_port()}")

    def broken(path: str) -> None:
        asked.append(path)
        raise ProtocolError("broken")

    monkeypatch.setattr(broker._management, "_exchange", broken)

    for _ in range(3):
        assert broker.measure(queue, TIMEOUT_S) == Depth(size=0, consumers=0)
    assert len(asked) == 1
