"""Channels that want the token in the join's payload: it is there, it is the present one, and it is never shown."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from infertool.channels.topics import TopicFeed
from infertool.embedded.channel_server import server
from infertool.embedded.channel_server.channels import OK, Channel, Definition, RefuseJoin
from infertool.errors import JoinRefusedError, SettingsError
from infertool.net.connection_state import ConnectionState
from infertool.secret import MASK, Secret
from infertool.settings.tree import PhoenixSettings
from tests.embedded.channel_server.running import RunningHub
from tests.phoenix.collect import delivery, pushes
from tests.support.secretfiles import secret_in

TOKEN = "Hush-me/'31"


class Guarded:
    """Channels that ask for a token in the join's payload, on a socket that anyone may open."""

    def __init__(self, words: str = "unauthorized") -> None:
        self.token = TOKEN
        self.crash_once = False
        self.joins: list[tuple[str, Any]] = []
        self._words = words

    def definitions(self) -> list[Definition]:
        return [Definition("service:*", self._join, self._handle), Definition("public:*", self._join, self._handle)]

    def _join(self, channel: Channel, params: Any) -> dict[str, Any]:
        self.joins.append((channel.topic, params))
        if params.get("token") != self.token:
            raise RefuseJoin(self._words.format(params=params, **params))
        return {}

    def _handle(self, channel: Channel, event: str, payload: object) -> Any:
        if self.crash_once:
            self.crash_once = False
            raise RuntimeError(event)
        channel.broadcast(server.REBROADCAST[event], event, payload)
        return OK


def url(hub: RunningHub) -> str:
    return f"ws://127.0.0.1:{hub.port}/socket/websocket"


@pytest.mark.parametrize("token_in", ["params", "protocol"])
def test_the_token_is_in_the_payload_wherever_the_socket_has_it(token_in: str) -> None:
    guarded = Guarded()
    with RunningHub(guarded.definitions(), TOKEN) as hub:
        changes = {"token": Secret(TOKEN), "token_in": token_in, "join_params": {"room": "a"}}
        with delivery(url(hub), **changes) as (made, owner):
            made.push(pushes(3))
            assert made.drain(60)
            assert owner.confirmed() == [0, 1, 2]
    assert guarded.joins[0] == ("service:inference", {"token": TOKEN, "room": "a"})


@pytest.mark.parametrize(
    "place", ["ws://any:{}@127.0.0.1:{}/socket/websocket", "ws://127.0.0.1:{1}/socket/websocket?token={0}"]
)
def test_a_token_in_the_url_is_in_the_payload(place: str) -> None:
    guarded = Guarded()
    guarded.token = "hushed"
    with RunningHub(guarded.definitions()) as hub, delivery(place.format("hushed", hub.port)) as (made, _):
        made.push(pushes(1))
        assert made.drain(60)


def test_echoes_and_listeners_join_with_it() -> None:
    guarded = Guarded()
    with RunningHub(guarded.definitions()) as hub:
        settings = PhoenixSettings(url=url(hub), token=Secret(TOKEN), join_params={"room": "a"})
        feed = TopicFeed(settings, ["public:alerts"], on_events=lambda _: None, on_connection=lambda _: None)
        feed.connect()
        with delivery(url(hub), confirm="echo", token=Secret(TOKEN), join_params={"room": "a"}) as (made, owner):
            made.push(pushes(3))
            assert made.drain(60)
            assert owner.confirmations() == {"echo"}
        feed.close(5)
    assert {topic for topic, _ in guarded.joins} == {"service:inference", "public:results", "public:alerts"}
    assert all(params == {"token": TOKEN, "room": "a"} for _, params in guarded.joins)


def test_a_token_of_the_join_params_goes_before() -> None:
    guarded = Guarded()
    guarded.token = "another"
    with (
        RunningHub(guarded.definitions()) as hub,
        delivery(url(hub), token=Secret(TOKEN), join_params={"token": "another"}) as (made, _),
    ):
        made.push(pushes(1))
        assert made.drain(60)


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({}, "PHOENIX_SERVICE_TOKEN"),
        ({"token": Secret("wrong")}, "PHOENIX_SERVICE_TOKEN"),
        ({"token": Secret(TOKEN), "join_token": False}, "phoenix.join_token = true"),
        ({"token": Secret(TOKEN), "join_params": {"token": "wrong"}}, "phoenix.join_params"),
    ],
)
def test_a_refusal_names_what_to_set(changes: dict[str, Any], advice: str) -> None:
    with (
        RunningHub(Guarded().definitions()) as hub,
        pytest.raises(JoinRefusedError, match="unauthorized") as caught,
        delivery(url(hub), **changes),
    ):
        pass
    assert advice in caught.value.advice
    assert "phoenix.join_params" in caught.value.advice


def test_join_token_false_sends_none() -> None:
    guarded = Guarded()
    with (
        RunningHub(guarded.definitions()) as hub,
        pytest.raises(JoinRefusedError),
        delivery(url(hub), token=Secret(TOKEN), join_token=False),
    ):
        pass
    assert guarded.joins == [("service:inference", {})]


@pytest.mark.parametrize(
    "words", ["no entry with {token}", "bad params: {params}", "x" * 195 + "{token}", "key {api_key}"]
)
def test_a_server_that_repeats_the_payload_shows_no_secret(words: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    guarded = Guarded(words)
    guarded.token = "something else"
    changes: dict[str, Any] = {"token": Secret(TOKEN), "join_params": {"api_key": "Hush-key"}}
    with (
        RunningHub(guarded.definitions()) as hub,
        pytest.raises(JoinRefusedError) as caught,
        delivery(url(hub), **changes),
    ):
        pass
    shown = f"{caught.value} {vars(caught.value)} {caught.value!r} {caplog.text}"
    assert "Hush" not in shown
    assert MASK[:3] in shown
    assert TOKEN not in repr(PhoenixSettings(**changes))


def test_a_rejoin_reads_the_tokens_file_again(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    guarded = Guarded("no entry with {token}")
    with RunningHub(guarded.definitions()) as hub, delivery(url(hub), token=secret_in(token)) as (made, owner):
        token.unlink()
        guarded.crash_once = True
        made.push(pushes(2))
        owner.wait_for(lambda: any("phoenix.token_file" in text for text in owner.warnings), 60)
        guarded.token = "rotated"
        token.write_text(TOKEN)
        owner.wait_for(lambda: any("refused" in text for text in owner.warnings), 60)
        token.write_text("rotated")
        owner.wait_for(lambda: sorted(owner.confirmed()) == [0, 1], 60)
        assert not [event for event in owner.links if event.state is ConnectionState.LOST]
    assert not [text for text in owner.warnings if "Hush" in text]


def test_a_reconnect_reads_the_tokens_file_again(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    with RunningHub(server.definitions(), TOKEN) as hub, delivery(url(hub), token=secret_in(token)) as (made, owner):
        token.write_text("")
        hub.hub.token = Secret("rotated")
        hub.disconnect_all()
        owner.wait_for(lambda: any("phoenix.token_file" in event.reason for event in owner.links), 60)
        token.write_text(TOKEN)
        owner.wait_for(lambda: any("403" in event.reason for event in owner.links), 60)
        token.write_text("rotated")
        owner.wait_for_link(ConnectionState.CONNECTED, 2)
        made.push(pushes(2))
        assert made.drain(60)
        assert owner.confirmed() == [0, 1]


def test_a_first_connection_says_what_is_wrong_with_the_file(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    secret = secret_in(token)
    token.unlink()
    with (
        RunningHub(server.definitions(), TOKEN) as hub,
        pytest.raises(SettingsError, match=r"phoenix\.token_file"),
        delivery(url(hub), token=secret),
    ):
        pass
