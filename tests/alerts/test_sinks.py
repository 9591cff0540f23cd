"""Sinks take notifications in order; one that hangs or fails holds up nothing."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from infertool.alerts.engine import Notification
from infertool.alerts.settings import open_sinks
from infertool.alerts.sinks.alertmanager import AlertmanagerSink
from infertool.alerts.sinks.command import CommandSink
from infertool.alerts.sinks.delivery import Delivery
from infertool.alerts.sinks.phoenix import PhoenixSink
from infertool.alerts.sinks.port import Sink, SinkError
from infertool.alerts.sinks.webhook import WebhookSink
from infertool.errors import SettingsError
from infertool.secret import Secret
from infertool.settings import AlertSettings, Settings
from tests.alerts.receiver import PATIENCE_S, Receiver, receiving
from tests.support.ports import free_port

SECRET = Secret("whsec_" + base64.b64encode(b"k" * 24).decode())


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as opened:
        yield opened


def notification(rule: str = "Backlog", state: Literal["firing", "resolved"] = "firing") -> Notification:
    return Notification(
        rule=rule, state=state, severity="page", value=1500, threshold=1000, since=1_700_000_000.5,
        summary="1500 messages wait", labels={"queue": 'a"b\n'}, sinks=(),
    )  # fmt: skip


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_webhook_is_signed_and_carries_the_notification(receiver: Receiver) -> None:
    sink = WebhookSink(receiver.url("/hook"), SECRET, 10, clock=lambda: 1_700_000_100.9)
    sink.send([notification()], "msg_1")
    ((path, headers, body),) = receiver.requests
    assert path == "/hook"
    expected = hmac.new(b"k" * 24, b"msg_1.1700000100." + body, hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(expected).decode()}"
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("msg_1", "1700000100")
    sent = json.loads(body)
    assert (sent["type"], sent["timestamp"]) == ("alert.firing", "2023-11-14T22:15:00.900Z")
    assert sent["data"] == {
        "rule": "Backlog", "state": "firing", "severity": "page", "value": 1500, "threshold": 1000,
        "since": "2023-11-14T22:13:20.500Z", "summary": "1500 messages wait", "labels": {"queue": 'a"b\n'},
    }  # fmt: skip


def test_an_interim_answer_is_not_the_answer(receiver: Receiver) -> None:
    sink = WebhookSink(receiver.url("/hints"), SECRET, 10)
    receiver.status = 503
    with pytest.raises(SinkError, match="answered 503"):
        sink.send([notification()], "msg_1")
    receiver.status = 200
    sink.send([notification()], "msg_2")


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    with pytest.raises(SinkError, match="answered 302; redirects are not followed"):
        WebhookSink(receiver.url("/moved"), SECRET, 10).send([notification()], "k")
    assert [path for path, _, _ in receiver.requests] == ["/moved"]


@pytest.mark.parametrize(
    ("kind", "path"), [("alertmanager", "refuses"), ("alertmanager", "500"), ("webhook", "/hang"), ("webhook", "500")]
)
def test_a_server_that_fails_is_an_error_without_secrets(receiver: Receiver, kind: str, path: str) -> None:
    port = free_port() if path == "refuses" else receiver.server.server_address[1]
    receiver.status = 500
    url = f"http://me:hidden@127.0.0.1:{port}{path if path == '/hang' else '/'}"
    sink: Sink = AlertmanagerSink(url, 1) if kind == "alertmanager" else WebhookSink(url, SECRET, 1)
    with pytest.raises(SinkError) as caught:
        sink.send([notification()], "k")
    assert "hidden" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


def test_a_body_that_trickles_ends_at_the_time_limit(receiver: Receiver) -> None:
    """Each read of it is quick: the sink would wait for ever, and all notifications behind it."""
    with pytest.raises(SinkError, match="/trickle does not answer in full: timed out"):
        WebhookSink(receiver.url("/trickle"), SECRET, 1).send([notification()], "k")
    receiver.status = 500
    with pytest.raises(SinkError, match="/trickle answered 500"):
        WebhookSink(receiver.url("/trickle"), SECRET, 1).send([notification()], "k")


@pytest.mark.parametrize(
    ("part", "sent"), [("me:hidden", "me:hidden"), ("me%40x:hid%3Aden%E2%82%AC", "me@x:hid:den€"), ("m€:ä", "m€:ä")]
)
def test_the_user_part_of_a_url_is_a_login(receiver: Receiver, part: str, sent: str) -> None:
    WebhookSink(receiver.url("/").replace("://", f"://{part}@"), SECRET, 10).send([notification()], "k")
    assert receiver.requests[0][1]["authorization"] == "Basic " + base64.b64encode(sent.encode()).decode()


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_!!", "whsec_" + base64.b64encode(b"short").decode()])
def test_a_webhook_needs_a_key(text: str) -> None:
    settings = Settings(alerting=AlertSettings(webhook_url="http://h", webhook_secret=Secret(text)))
    with pytest.raises(SettingsError) as caught:
        open_sinks(settings)
    assert caught.value.key == "alerting.webhook_secret"


def test_sinks_are_those_of_the_settings() -> None:
    alerting = AlertSettings(
        alertmanager_url="http://h:9093", webhook_url="http://h", webhook_secret=SECRET, command=["true"]
    )
    assert [sink.name for sink in open_sinks(Settings(alerting=alerting))] == ["alertmanager", "webhook", "command"]
    assert open_sinks(Settings()) == []


def test_a_command_gets_json_on_standard_input(tmp_path: Path) -> None:
    out = tmp_path / "got; $(x)"
    code = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())"
    CommandSink([sys.executable, "-c", code, str(out)], PATIENCE_S).send([notification()], "k")
    assert json.loads(out.read_text())["labels"] == {"queue": 'a"b\n'}


def test_a_command_that_fails_hangs_or_is_not_there_is_an_error(tmp_path: Path) -> None:
    for arguments, words in (
        (["/nowhere/x"], "/nowhere/x cannot be run: No such file"),
        ([sys.executable, "-c", "exit(3)"], "failed with exit code 3"),
        (["a\0b"], "cannot be run"),
    ):
        with pytest.raises(SinkError, match=words):
            CommandSink(arguments, PATIENCE_S).send([notification()], "k")
    # What the command started ends with it: both hold the pipe, whose end is seen once they are gone.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    seen = threading.Thread(target=pipe.read_bytes, daemon=True)
    seen.start()
    with pytest.raises(SinkError, match="takes longer than 3 s"):
        CommandSink(["sh", "-c", f"sleep 1000 > {pipe} & sleep 1000"], 3).send([notification()], "k")
    with contextlib.suppress(OSError):  # on a very slow machine nobody has opened it yet
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    seen.join(PATIENCE_S)
    assert not seen.is_alive()


def test_phoenix_gets_the_document_with_a_stable_id() -> None:
    pushed: list[tuple[str, Any]] = []
    sink = PhoenixSink(lambda key, payload: pushed.append((key, json.loads(payload))))
    sink.send([notification()], "msg_7")
    ((key, payload),) = pushed
    assert (key, payload["event_id"]) == ("msg_7", "msg_7")
    assert {"rule", "state", "severity", "value", "threshold", "since", "labels"} <= set(payload)


class Scripted:
    """A sink that fails, or waits at `gate`, as told."""

    name = "scripted"
    repeats = True

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.gate = threading.Event()
        self.gate.set()
        self.got: list[tuple[str, str, str]] = []
        self.began = 0

    def send(self, notifications: Sequence[Notification], key: str) -> None:
        self.began += 1
        self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise SinkError("it says no") if self.failures % 2 else ValueError("odd")
        self.got += [(each.rule, each.state, key) for each in notifications]

    def close(self) -> None:
        self.gate.set()


def test_notifications_are_tried_again_in_order_under_the_same_key() -> None:
    warned: list[str] = []
    sink = Scripted(failures=2)
    delivery = Delivery(sink, warned.append, waits_s=(0, 0, 0))
    delivery.put(notification())
    delivery.put(notification(state="resolved"))
    wait_until(lambda: len(sink.got) == 2)
    assert [each[:2] for each in sink.got] == [("Backlog", "firing"), ("Backlog", "resolved")]
    assert sink.got[0][2] != sink.got[1][2]
    assert warned == ["alerts to scripted: it says no; it is tried again"]
    assert delivery.close(PATIENCE_S)
    assert (delivery.sent, delivery.dropped) == (2, 0)


def test_what_fails_for_good_is_dropped_counted_and_reported() -> None:
    warned: list[str] = []
    sink = Scripted(failures=3)
    delivery = Delivery(sink, warned.append, waits_s=(0, 0))
    delivery.put(notification("A"))
    delivery.put(notification("B"))
    wait_until(lambda: len(sink.got) == 1)
    assert sink.got[0][0] == "B"
    assert delivery.dropped == 1
    assert warned[-1] == "alerts to scripted: A firing is dropped: ValueError: odd; 1 dropped so far"
    delivery.close(PATIENCE_S)


def test_a_sink_that_hangs_holds_up_no_other_and_drops_the_oldest() -> None:
    warned: list[str] = []
    hanging, quick = Scripted(), Scripted()
    hanging.gate.clear()
    deliveries = [Delivery(hanging, warned.append), Delivery(quick, warned.append)]
    for number in range(150):
        for delivery in deliveries:
            delivery.put(notification(f"R{number}"))
            if number == 0:
                wait_until(lambda: hanging.began == 1)
            if delivery is deliveries[1]:
                wait_until(lambda number=number: len(quick.got) > number)  # type: ignore[misc]
    assert deliveries[0].dropped == 49
    assert "R1 firing is dropped: 100 wait" in warned[0]
    assert not deliveries[0].close(0)
    assert deliveries[1].close(PATIENCE_S)


def test_a_repetition_never_follows_the_resolution() -> None:
    sink = Scripted()
    sink.gate.clear()
    delivery = Delivery(sink, print)
    delivery.put(notification("A"))
    wait_until(lambda: sink.began == 1)
    delivery.repeat([notification("A"), notification("B")])
    delivery.repeat([notification("A"), notification("B"), notification("C")])
    delivery.put(notification("A", "resolved"))
    delivery.repeat([notification("A"), notification("B")])
    sink.gate.set()
    wait_until(lambda: len(sink.got) == 3)
    assert [each[:2] for each in sink.got] == [("A", "firing"), ("A", "resolved"), ("B", "firing")]
    delivery.close(PATIENCE_S)


def test_an_alert_for_alertmanager_ends_four_minutes_ahead(receiver: Receiver) -> None:
    sink = AlertmanagerSink(receiver.url("/prefix/"), 10, clock=lambda: 1_700_000_100.0)
    sink.send([notification(), replace(notification("Disk", "resolved"), value=None)], "k")
    ((path, _, body),) = receiver.requests
    assert path == "/prefix/api/v2/alerts"
    firing, resolved = json.loads(body)
    assert firing["labels"] == {"alertname": "Backlog", "severity": "page", "queue": 'a"b\n'}
    assert firing["annotations"] == {"summary": "1500 messages wait", "value": "1500", "threshold": "1000"}
    assert firing["startsAt"] == "2023-11-14T22:13:20.500Z"
    assert firing["endsAt"] == "2023-11-14T22:19:00.000Z"
    assert (resolved["endsAt"], "startsAt" in resolved) == ("2023-11-14T22:15:00.000Z", False)
