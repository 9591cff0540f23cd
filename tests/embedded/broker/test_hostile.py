"""Clients that break off, stay silent, do not read or send garbage affect no other client."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator

import psutil
import pytest

from infertool.embedded.broker.client import Login
from infertool.embedded.broker.server import Server
from tests.embedded.broker.conftest import Connect, Embedded, start, stop
from tests.embedded.broker.raw import PATIENCE_S, Raw, frame, frame_of, send, subscribe
from tests.embedded.broker.test_settling import bodies, filled


@pytest.fixture
def fresh() -> Iterator[Embedded]:
    broker = start()
    yield broker
    assert stop(broker) == ""


def test_a_frame_cut_anywhere_and_broken_off(embedded: Embedded, connect_embedded: Connect, queue: str) -> None:
    whole = send(f"/queue/{queue}", "cut off", content_length=7)
    for length in range(1, len(whole)):
        client = Raw(embedded.port)
        client.connect()
        client.write(whole[:length])
        # A reset, not an end: the unkind way.
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    survivor = connect_embedded()
    survivor.write(subscribe(f"/queue/{queue}"), whole)
    assert survivor.read().body == b"cut off"
    assert survivor.quiet()


def test_a_producer_that_leaves_at_once_blocks_no_other_client(
    embedded: Embedded, connect_embedded: Connect, queue: str
) -> None:
    consumer = connect_embedded()
    consumer.done(subscribe(f"/queue/{queue}", ack="auto"))
    for _ in range(30):
        producer = Raw(embedded.port)
        producer.connect()
        # Its socket is gone by the time that the broker has read all this.
        producer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        producer.write(send(f"/queue/{queue}") * 40, frame("DISCONNECT"))
        producer.close()
        consumer.read_many(40)


def test_a_frame_in_single_bytes(connect_embedded: Connect, queue: str) -> None:
    client = connect_embedded()
    client.done(subscribe(f"/queue/{queue}"))
    for byte in send(f"/queue/{queue}", "drip", content_length=4):
        client.write(bytes([byte]))
    assert client.read().body == b"drip"


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\0" * 100 + b"\n\n\0",
        bytes(range(256)) * 50 + b"\n\n\0",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\n\n\0",
        b"SEND\nno colon here\n\n\0",
        b"send\ndestination:/queue/a\n\n\0",
    ],
)
def test_rubbish_gets_an_error_and_the_end(embedded: Embedded, rubbish: bytes) -> None:
    client = Raw(embedded.port)
    client.write(rubbish)
    assert client.read().command == "ERROR"
    assert client.closed()


def test_carriage_returns_do_not_break_version_1_0(connect_embedded: Connect, queue: str) -> None:
    """There they belong to the value, and there is no way to write them."""
    client = connect_embedded("1.0")
    asked = f"SUBSCRIBE\nid:a\rb\ndestination:/queue/{queue}\nreceipt:r\rs\n\n\0".encode()
    assert client.ask(asked).pairs == (("receipt-id", "r s"),)
    client.write(f"SEND\ndestination:/queue/{queue}\nodd:c\rd\n\nx\0".encode())
    assert {("subscription", "a b"), ("odd", "c d")} <= set(client.read().pairs)
    assert client.ask(b"FO\rO\n\n\0").command == "ERROR"


def test_frames_right_behind_connect_are_served(embedded: Embedded, queue: str) -> None:
    client = Raw(embedded.port)
    hello = frame("CONNECT", accept_version="1.0")
    client.write(hello, frame("BEGIN", transaction="t", receipt="a\\nb"), send(f"/queue/{queue}", receipt="c"))
    assert [got.command for got in client.read_many(3)] == ["CONNECTED", "RECEIPT", "RECEIPT"]


@pytest.mark.parametrize("beats", ["99999999999999999999999999,99999999999999999999999999", "0,0", "1000,1"])
def test_any_heartbeat_is_survived(embedded: Embedded, beats: str) -> None:
    client = Raw(embedded.port)
    assert client.connect(heart_beat=beats).command == "CONNECTED"
    assert client.sync() == []


@pytest.mark.parametrize("beats", ["1", "", "-1,0", "1,2,3", "a,b", "9" * 5000 + ",0"])
def test_a_broken_heartbeat_header_is_refused(embedded: Embedded, beats: str) -> None:
    client = Raw(embedded.port)
    assert client.connect(heart_beat=beats)["message"].startswith("Invalid heart-beat header")
    assert client.closed()


def test_line_ends_between_frames_are_heartbeats(connect_embedded: Connect) -> None:
    client = connect_embedded()
    client.write(b"\n\n\r\n\n")
    assert client.sync() == []


def test_a_thousand_headers_are_kept(connect_embedded: Connect, queue: str) -> None:
    client = connect_embedded()
    headers = {f"h{number}": str(number) for number in range(999)}
    client.write(frame_of("SEND", {"destination": f"/queue/{queue}", **headers}, "x"), subscribe(f"/queue/{queue}"))
    assert headers.items() <= client.read().headers.items()


def test_headers_that_are_not_utf_8_come_out_as_they_went_in(connect_embedded: Connect, queue: str) -> None:
    client = connect_embedded()
    client.write(b"SEND\ndestination:/queue/%b\nodd:\xff\xfe\n\nx\0" % queue.encode(), subscribe(f"/queue/{queue}"))
    data = b""
    while b"\0" not in data:
        data += client.socket.recv(4096)
    assert b"odd:\xff\xfe\n" in data


@pytest.mark.parametrize(
    "destination", ["/queue/", "/topic/", "/temp-queue/", "/queue/a,,/queue/b", "/queue/a?consumer.prefetchSize=1"]
)
def test_destinations_that_cannot_be_honoured_are_refused(connect_embedded: Connect, destination: str) -> None:
    client = connect_embedded()
    refused = client.ask(send(destination, receipt="s"))
    assert (refused.command, refused["receipt-id"]) == ("ERROR", "s")
    assert client.ask(subscribe(destination)).command == "ERROR"
    assert client.sync() == []


@pytest.mark.parametrize("header", ["durable", "durable-subscriber-name"])
def test_what_other_brokers_call_durable_is_refused(connect_embedded: Connect, queue: str, header: str) -> None:
    """ActiveMQ ignores it, and what is published while the client is away is lost."""
    asked = {"id": "s", "destination": f"/topic/{queue}", header: "me"}
    assert "activemq.subscriptionName" in connect_embedded().ask(frame_of("SUBSCRIBE", asked))["message"]


def test_clients_that_never_finish_connect_keep_no_client_out(fresh: Embedded) -> None:
    half = [socket.create_connection(("127.0.0.1", fresh.port), PATIENCE_S) for _ in range(500)]
    for line in half:
        with contextlib.suppress(OSError):  # the oldest are closed while others come
            line.sendall(b"CONNECT\naccept-version:1.2\n")
    client = Raw(fresh.port)
    assert client.connect().command == "CONNECTED"
    client.done(subscribe("/queue/q", "auto"))
    # No more of them than that are waited for; whoever said CONNECT is none of them.
    closed = half[:250]
    for line in closed:
        with contextlib.suppress(ConnectionResetError):
            assert line.recv(1) == b""
    client.write(send("/queue/q", "still here"))
    assert client.read().body == b"still here"
    for line in half:
        line.close()


def test_others_temporary_destinations_are_refused(connect_embedded: Connect, queue: str) -> None:
    owner, other = connect_embedded(), connect_embedded()
    other.done(subscribe(f"/queue/{queue}", "auto"))
    owner.write(send(f"/queue/{queue}", reply_to="/temp-queue/mine"))
    remote = other.read()["reply-to"]
    assert "belongs to another connection" in other.ask(subscribe(remote.replace(":", "\\c"), id="r"))["message"]


def test_a_message_survives_a_client_that_is_reset(embedded: Embedded, connect_embedded: Connect, queue: str) -> None:
    client = filled(connect_embedded, queue, 3)
    client.write(subscribe(f"/queue/{queue}"))
    client.read_many(3)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    other = connect_embedded()
    other.write(subscribe(f"/queue/{queue}"))
    assert bodies(other.read_many(3)) == ["m0", "m1", "m2"]


BIG = 1_000_000


def test_a_client_that_does_not_read_is_bounded(fresh: Embedded) -> None:
    """100 messages of 1 MB for a client that asked for a window of 1000 and never reads."""
    producer, lazy = Raw(fresh.port), Raw(fresh.port)
    producer.connect()
    lazy.connect()
    producer.done(*(send("/queue/big", bytes(BIG), content_length=BIG) for _ in range(100)))
    process = psutil.Process(fresh.process.pid)
    held = process.memory_info().rss
    for ack in ("auto", "client-individual"):
        lazy.write(subscribe("/queue/big", ack, id=ack))
    # Each answer is a turn of the broker's loop, in which it might write more.
    for _ in range(300):
        producer.sync()
    assert process.memory_info().rss < held + 30 * BIG
    # It still gets everything, once it reads.
    assert sum(len(got.body) for got in lazy.read_many(100)) == 100 * BIG


def test_a_client_that_asks_for_answers_and_does_not_read_is_stopped(fresh: Embedded) -> None:
    """Receipts would pile up: the broker stops reading from it, as ActiveMQ does."""
    lazy = Raw(fresh.port)
    lazy.connect()
    lazy.socket.settimeout(1.0)
    # 50 MB of them: far more than the sockets' buffers hold.
    requests = frame("BEGIN", receipt="x" * 5000) * 10_000
    with pytest.raises(TimeoutError):
        lazy.socket.sendall(requests)
    assert psutil.Process(fresh.process.pid).memory_info().rss < 150_000_000
    neighbour = Raw(fresh.port)
    assert neighbour.connect().command == "CONNECTED"


def test_a_topic_subscriber_that_lags_loses_the_oldest(connect_embedded: Connect, queue: str) -> None:
    """ActiveMQ would block the producer or fill its memory; a development broker does neither."""
    client, producer = connect_embedded(), connect_embedded()
    client.done(subscribe(f"/topic/{queue}", prefetch="1"))
    producer.done(*(send(f"/topic/{queue}", str(number)) for number in range(10_003)))
    first = client.read()
    assert first.body == b"0"
    client.write(frame("ACK", id=first["ack"]))
    assert client.read().body == b"3"


def test_a_client_that_says_nothing_is_closed() -> None:
    async def silent() -> bytes:
        server = Server(Login(), handshake_timeout_s=0.05)
        port = await server.start("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        said = await asyncio.wait_for(reader.read(), PATIENCE_S)
        writer.close()
        await server.stop()
        return said

    assert asyncio.run(silent()).startswith(b"ERROR\ncontent-type:text/plain\nmessage:no CONNECT within 0.05 s\n")
