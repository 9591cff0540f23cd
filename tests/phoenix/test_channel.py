"""Channels for listeners: messages, replies, leaving, and coming back."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from infertool.errors import ConnectionLostError, JoinRefusedError, UnreachableError
from infertool.phoenix.frames import Frame, Reply, encode_broadcast
from infertool.phoenix.membership import JoinState
from infertool.phoenix.socket import PhoenixSocket
from infertool.settings.tree import PhoenixSettings
from tests.support.channel import Channel, PushTimeoutError
from tests.support.phoenix_fake import FakePhoenix, Peer, fake_phoenix, is_push, polite

TOPIC = "public:results"


class Listener:
    """One channel and what it brought."""

    def __init__(self, phoenix: PhoenixSocket, topic: str = TOPIC, **options: Any) -> None:
        self.messages: queue.Queue[Frame] = queue.Queue()
        self.states: queue.Queue[tuple[JoinState, str]] = queue.Queue()
        self.channel = Channel(
            phoenix,
            topic,
            {"since": 1},
            on_message=self.messages.put,
            on_state=lambda *state: self.states.put(state),
            **options,
        )

    def next_message(self) -> Frame:
        return self.messages.get(timeout=90)

    def next_state(self) -> tuple[JoinState, str]:
        return self.states.get(timeout=90)


@contextlib.contextmanager
def connected(fake: FakePhoenix, **options: Any) -> Iterator[PhoenixSocket]:
    phoenix = PhoenixSocket(PhoenixSettings(url=fake.url, **({"connect_timeout_s": 60.0} | options)))
    phoenix.connect()
    try:
        yield phoenix
    finally:
        phoenix.close(2)


@contextlib.contextmanager
def joined(fake: FakePhoenix, **options: Any) -> Iterator[Listener]:
    with connected(fake) as phoenix:
        listener = Listener(phoenix, **options)
        listener.channel.join(90)
        assert listener.next_state() == (JoinState.JOINED, "")
        yield listener


def test_join_returns_the_response() -> None:
    def greet(peer: Peer, frame: Frame) -> None:
        peer.reply(frame, "ok", {"params": frame.payload})

    with fake_phoenix(greet) as fake, connected(fake) as phoenix:
        assert Listener(phoenix).channel.join(90) == {"params": {"since": 1}}


def test_broadcasts_pushes_and_binary() -> None:
    with fake_phoenix() as fake, joined(fake) as listener:
        peer, join = fake.peers[0], fake.frames[0]
        peer.broadcast(TOPIC, "new_result", {"n": 1})
        peer.send(join.join_ref, None, TOPIC, "direct", {"n": 2})
        peer.ws.send(encode_broadcast(TOPIC, "blob", b"\0\1"))
        peer.broadcast("public:other", "new_result", {"n": 3})
        peer.broadcast(TOPIC, "new_result", {"n": 4})
        assert [listener.next_message().payload for _ in range(4)] == [{"n": 1}, {"n": 2}, b"\0\1", {"n": 4}]


def test_frames_of_an_older_join_are_dropped() -> None:
    with fake_phoenix() as fake, joined(fake) as listener:
        peer, join = fake.peers[0], fake.frames[0]
        peer.send("0", None, TOPIC, "direct", {"stale": True})
        peer.send("0", "0", TOPIC, "phx_error", {})
        peer.send("0", "0", TOPIC, "phx_close", {})
        peer.send(join.join_ref, None, TOPIC, "direct", {"stale": False})
        assert listener.next_message().payload == {"stale": False}
        assert listener.channel.state is JoinState.JOINED


def test_push_and_reply() -> None:
    def echo(peer: Peer, frame: Frame) -> None:
        peer.reply(frame, "busy" if is_push(frame) else "ok", frame.payload)

    with fake_phoenix(echo) as fake, joined(fake) as listener:
        assert listener.channel.push("echo", {"n": 1}).result(90) == Reply("busy", {"n": 1})


def silent(peer: Peer, frame: Frame) -> None:
    if not is_push(frame):
        polite(peer, frame)


def test_push_without_reply() -> None:
    with fake_phoenix(silent) as fake, joined(fake, push_timeout_s=0.2) as listener:
        assert isinstance(listener.channel.push("echo", {}).exception(90), PushTimeoutError)


def test_push_fails_with_the_channel() -> None:
    with fake_phoenix(silent) as fake, joined(fake) as listener:
        reply = listener.channel.push("boom", {})
        fake.wait_for(lambda: len(fake.frames) == 2)
        fake.peers[0].crash(fake.frames[0])
        with pytest.raises(ConnectionLostError, match="crashed"):
            reply.result(90)
        with pytest.raises(ConnectionLostError, match="not joined"):
            listener.channel.push("echo", {}).result(90)


def test_rejoin_after_a_loss() -> None:
    with fake_phoenix() as fake, joined(fake) as listener:
        fake.peers[0].drop()
        state, reason = listener.next_state()
        assert state is JoinState.WAITING
        assert "connection was lost" in reason
        assert listener.next_state() == (JoinState.JOINED, "")
        fake.peers[1].broadcast(TOPIC, "new_result", {"n": 1})
        assert listener.next_message().payload == {"n": 1}


def state_of(listener: Listener) -> JoinState:
    return listener.channel.state


def test_leave() -> None:
    with fake_phoenix() as fake, connected(fake) as phoenix:
        left, stays = Listener(phoenix), Listener(phoenix, "public:alerts")
        left.channel.join(90)
        stays.channel.join(90)
        left.channel.leave()
        fake.wait_for(lambda: fake.events(TOPIC)[-1] == "phx_leave")
        fake.peers[0].close_channel(fake.frames[0])
        fake.peers[0].broadcast(TOPIC, "new_result", {})
        fake.peers[0].broadcast("public:alerts", "alert", {})
        assert stays.next_message().event == "alert"
        assert left.messages.empty()
        assert state_of(left) is JoinState.LEFT
        left.channel.join(90)
        assert state_of(left) is JoinState.JOINED


def test_refused_join_can_be_tried_again() -> None:
    def refuse(peer: Peer, frame: Frame) -> None:
        peer.reply(frame, "error" if len(fake.frames) == 1 else "ok", {"reason": "later"})

    with fake_phoenix(refuse) as fake, connected(fake) as phoenix:
        listener = Listener(phoenix)
        with pytest.raises(JoinRefusedError, match="later"):
            listener.channel.join(90)
        listener.channel.join(90)


def test_join_never_answered() -> None:
    with fake_phoenix(lambda _peer, _frame: None) as fake, connected(fake) as phoenix:
        listener = Listener(phoenix)
        with pytest.raises(UnreachableError, match=TOPIC):
            listener.channel.join(0.3)
        fake.wait_for(lambda: fake.events(TOPIC) == ["phx_join", "phx_leave"])


def test_one_channel_a_topic() -> None:
    with fake_phoenix() as fake, connected(fake) as phoenix:
        Listener(phoenix).channel.join(90)
        with pytest.raises(ValueError, match=TOPIC):
            Listener(phoenix).channel.join(90)


def test_fragments_pings_and_split_frames() -> None:
    """Fragmented messages are put together, pings answered, and any split of the bytes gives the same messages."""
    with fake_phoenix() as fake, joined(fake) as listener:
        ws = fake.peers[0].ws
        ws.send(['[null,null,"public:results"', ',"new_result"', ',{"n":1}]'])
        assert ws.ping().wait(90)
        text = b'[null,null,"public:results","e",{"n":2222}]'
        for byte in bytes([0x81, len(text)]) + text:
            ws.socket.sendall(bytes([byte]))
        assert [listener.next_message().payload for _ in range(2)] == [{"n": 1}, {"n": 2222}]


def test_close_while_joining() -> None:
    failed: queue.Queue[Exception] = queue.Queue()

    def join(listener: Listener) -> None:
        try:
            listener.channel.join(90)
        except ConnectionLostError as error:
            failed.put(error)

    with fake_phoenix(lambda _peer, _frame: None) as fake, connected(fake) as phoenix:
        thread = threading.Thread(target=join, args=(Listener(phoenix),))
        thread.start()
        fake.wait_for(lambda: fake.frames)
    assert failed.get(timeout=90)
    thread.join()


def test_a_callback_that_raises_ends_all_in_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may not raise; if it does, the socket closes and says so, instead of standing still."""
    raised: queue.Queue[object] = queue.Queue()
    monkeypatch.setattr(threading, "excepthook", raised.put)

    def fail(_frame: Frame) -> None:
        raise RuntimeError("a callback's mistake")

    with fake_phoenix() as fake, connected(fake) as phoenix:
        channel = Channel(phoenix, TOPIC, {}, on_message=fail)
        channel.join(90)
        fake.peers[0].broadcast(TOPIC, "new_result", {})
        raised.get(timeout=90)
        with pytest.raises(ConnectionLostError):
            channel.push("echo", {}).result(90)


def test_a_timer_callback_that_raises_ends_all_in_view(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: queue.Queue[object] = queue.Queue()
    monkeypatch.setattr(threading, "excepthook", raised.put)

    def fail() -> None:
        raise RuntimeError("a callback's mistake")

    with fake_phoenix() as fake, joined(fake) as listener, connected(fake) as phoenix:
        second = Listener(phoenix)
        second.channel.join(90)
        phoenix.after(0, fail)
        raised.get(timeout=90)
        assert second.next_state()[0] is JoinState.JOINED
        assert second.next_state()[0] is JoinState.WAITING
        assert listener.channel.state is JoinState.JOINED
