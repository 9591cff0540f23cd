"""The rules of a running consumer: told to sinks and to Phoenix, kept over a restart, never at the cost of events."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import websocket

from infertool.alerts.engine import Notification
from infertool.alerts.sinks.port import SinkError
from infertool.app.alerting import Alerting, Pusher
from infertool.errors import SettingsError, UsageError
from infertool.phoenix.frames import Frame
from infertool.settings import (
    AlertSettings,
    BrokerSettings,
    ConsumeSettings,
    PhoenixSettings,
    PublishSettings,
    Settings,
)
from infertool.telemetry.stats_document import QueueStats, StatsDocument
from tests.alerts.support import document
from tests.support.hub import HubProcess
from tests.support.phoenix_fake import Peer, fake_phoenix, is_push, polite

PATIENCE_S = 120
RULE = {"name": "Backlog", "for": "0s"}


class Recorded:
    """A sink that keeps what it gets."""

    def __init__(self, name: str = "command", *, repeats: bool = False) -> None:
        self.name = name
        self.repeats = repeats
        self.got: list[tuple[str, str, str]] = []
        self.changed = threading.Condition()

    def send(self, notifications: Sequence[Notification], key: str) -> None:
        with self.changed:
            self.got += [(each.rule, each.state, each.labels["consumer"]) for each in notifications]
            self.changed.notify_all()

    def wait_for(self, count: int) -> list[tuple[str, str]]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.got) >= count, PATIENCE_S)
            return [each[:2] for each in self.got]

    def close(self) -> None:
        pass


class Consumer:
    """Stands for a consumer: its document has the depth that a test sets."""

    def __init__(self) -> None:
        self.depth: int | None = 0

    def __call__(self) -> StatsDocument:
        return document(queue=QueueStats(name="q", depth=self.depth))


def settings(folder: Path, **alerting: Any) -> Settings:
    return Settings(
        consume=ConsumeSettings(state_dir=str(folder)),
        publish=PublishSettings(mode="none"),
        alerting=AlertSettings(rules=[RULE, *alerting.pop("rules", [])], **alerting),
    )


def test_the_thread_tells_a_sink_of_firing_and_resolved(tmp_path: Path) -> None:
    consumer, sink, others = Consumer(), Recorded(), Recorded("webhook")
    with Alerting(
        settings(tmp_path, rules=[{"name": "Backlog", "sinks": ["command"]}]), consumer, [sink, others]
    ) as alerting:
        consumer.depth = 5000
        assert sink.wait_for(1) == [("Backlog", "firing")]
        shown = next(state for state in alerting.states if state.rule == "Backlog")
        assert (shown.state, shown.value, shown.severity) == ("firing", 5000, "page")
        consumer.depth = 1
        assert sink.wait_for(2)[1] == ("Backlog", "resolved")
        assert alerting.dropped == {"command": 0, "webhook": 0}
    assert others.got == []


def test_a_restart_neither_resolves_nor_tells_again_but_repeats(tmp_path: Path) -> None:
    consumer, sink = Consumer(), Recorded()
    consumer.depth = 5000
    with Alerting(settings(tmp_path), consumer, [sink]):
        sink.wait_for(1)
    consumer.depth = None
    again, manager = Recorded(), Recorded("alertmanager", repeats=True)
    with Alerting(settings(tmp_path), consumer, [again, manager]) as alerting:
        # Alertmanager would let the alert end, so it is told again at once.
        assert manager.wait_for(1) == [("Backlog", "firing")]
        assert next(state for state in alerting.states if state.rule == "Backlog").state == "firing"
        consumer.depth = 1
        assert again.wait_for(1) == [("Backlog", "resolved")]
    assert manager.got[0][2] == sink.got[0][2], "the labels are those of the first run"


class Away(Recorded):
    """A sink that takes nothing."""

    def __init__(self) -> None:
        super().__init__("webhook")
        self.tried = threading.Event()

    def send(self, notifications: Sequence[Notification], key: str) -> None:
        self.tried.set()
        raise SinkError("away")


def test_what_a_sink_did_not_get_before_the_end_is_told_to_it_after_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    consumer, away, other = Consumer(), Away(), Recorded()
    consumer.depth = 5000
    with Alerting(settings(tmp_path), consumer, [away, other]) as alerting:
        assert away.tried.wait(PATIENCE_S)
        other.wait_for(1)
        alerting.evaluate()
        # Also on disk by now, for a process that is killed.
        (saved,) = tmp_path.glob("alerts-*.json")
        assert json.loads(saved.read_text())["untold"] == {"webhook": ["Backlog"], "command": []}
    assert "alerts to webhook: Backlog was not delivered" in caplog.text
    back, again = Recorded("webhook"), Recorded()
    with Alerting(settings(tmp_path), consumer, [back, again]) as alerting:
        assert back.wait_for(1) == [("Backlog", "firing")]
        alerting.evaluate()
    third = Recorded("webhook")
    with Alerting(settings(tmp_path), consumer, [third]) as alerting:
        alerting.evaluate()
    assert (len(back.got), again.got, third.got) == (1, [], [])


def test_what_was_resolved_meanwhile_is_told_as_resolved(tmp_path: Path) -> None:
    consumer, away = Consumer(), Away()
    consumer.depth = 5000
    with Alerting(settings(tmp_path), consumer, [away]):
        assert away.tried.wait(PATIENCE_S)
    consumer.depth = 0
    back = Recorded("webhook")
    rules = [{"name": "Backlog", "keep_firing_for": "0s", "clear": ""}]
    with Alerting(settings(tmp_path, rules=rules), consumer, [back]) as alerting:
        assert back.wait_for(1)[-1] == ("Backlog", "resolved")
        alerting.evaluate()
    assert len(back.got) == 1


@pytest.mark.parametrize("crashes", [True, False])
def test_a_channel_that_takes_no_alert_is_named(crashes: bool, caplog: pytest.LogCaptureFixture) -> None:
    def answer(peer: Peer, frame: Frame) -> None:
        if not is_push(frame):
            polite(peer, frame)
        elif crashes:
            peer.crash(frame)

    with fake_phoenix(answer) as fake:
        pusher = Pusher(Settings(phoenix=PhoenixSettings(url=fake.url, confirm="reply", push_timeout_s=0.2)))

        def push() -> None:
            with contextlib.suppress(SinkError):
                pusher.push("a-1", b"{}")

        pushing = threading.Thread(target=push)
        pushing.start()
        deadline = time.monotonic() + PATIENCE_S
        while "alerts to phoenix: " not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        pusher.close()
        pushing.join()
    assert "alert a-1" in caplog.text


def test_consumers_of_one_machine_have_states_and_labels_of_their_own(tmp_path: Path) -> None:
    consumer, first, second, third = Consumer(), Recorded(), Recorded(), Recorded()
    consumer.depth = 5000
    with Alerting(settings(tmp_path), consumer, [first]):
        first.wait_for(1)
        with Alerting(settings(tmp_path), consumer, [second]):
            second.wait_for(1)
    assert second.got[0][2] == f"{first.got[0][2]}#2"
    other = replace(settings(tmp_path), broker=BrokerSettings(queue="/queue/other"))
    with Alerting(other, consumer, [third]):
        assert third.wait_for(1) == [("Backlog", "firing")]


def test_a_silence_holds_and_survives_a_restart(tmp_path: Path) -> None:
    consumer, sink = Consumer(), Recorded()
    with Alerting(settings(tmp_path), consumer, [sink]) as alerting:
        with pytest.raises(UsageError, match="there is no rule Backlg; did you mean 'Backlog'"):
            alerting.silence("Backlg", 60)
        alerting.silence("Backlog", 3600)
        consumer.depth = 5000
        alerting.evaluate()
    with Alerting(settings(tmp_path), consumer, [sink]) as alerting:
        alerting.evaluate()
        assert sink.got == []
        alerting.silence("Backlog", 0)
        assert sink.wait_for(1) == [("Backlog", "firing")]


def test_a_folder_that_cannot_be_written_and_a_broken_document_only_warn(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sink = Recorded()
    given = iter([ValueError("no figures")])

    def figures() -> StatsDocument:
        for fault in given:
            raise fault
        return document(queue=QueueStats(name="q", depth=5000))

    with Alerting(settings(tmp_path / "file"), figures, [sink]):
        assert sink.wait_for(1) == [("Backlog", "firing")]


def test_a_wrong_rule_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="alert rule Backlog: there is no key fro"):
        Alerting(settings(tmp_path, rules=[{"name": "Backlog", "fro": "1m"}]), Consumer())


@pytest.fixture
def hub() -> Iterator[HubProcess]:
    started = HubProcess().start()
    yield started
    started.stop()


def joined(url: str) -> websocket.WebSocket:
    viewer = websocket.create_connection(f"{url}?vsn=2.0.0", timeout=PATIENCE_S, suppress_origin=True)
    viewer.send(json.dumps(["1", "1", "public:alerts", "phx_join", {}]))
    assert json.loads(viewer.recv())[3] == "phx_reply"
    return viewer


def alert(viewer: websocket.WebSocket) -> dict[str, Any]:
    while True:
        _, _, topic, event, payload = json.loads(viewer.recv())
        if event == "alert":
            assert topic == "public:alerts"
            return dict(payload)


def test_dashboards_get_the_event_alert_also_after_phoenix_was_away(tmp_path: Path, hub: HubProcess) -> None:
    consumer = Consumer()
    given = replace(settings(tmp_path), phoenix=PhoenixSettings(url=hub.url), publish=PublishSettings(mode="phoenix"))
    viewer = joined(hub.url)
    with Alerting(given, consumer):
        consumer.depth = 5000
        told = alert(viewer)
        assert (told["rule"], told["state"], told["severity"], told["value"], told["threshold"]) == (
            "Backlog", "firing", "page", 5000, 1000,
        )  # fmt: skip
        assert told["labels"]["queue"] == "q"
        # The dashboard's page reads times as text.
        assert abs(datetime.fromisoformat(told["since"]).timestamp() - time.time()) < 10 * PATIENCE_S
        hub.kill()
        viewer.close()
        consumer.depth = 1
        hub.start()
        viewer = joined(hub.url)
        first = told["event_id"]
        while (told := alert(viewer))["event_id"] == first:
            continue  # its confirmation was lost with the server
        assert (told["rule"], told["state"]) == ("Backlog", "resolved")
    viewer.close()


def test_a_phoenix_that_is_away_holds_up_neither_the_rules_nor_the_stop(tmp_path: Path) -> None:
    consumer = Consumer()
    consumer.depth = 5000
    pid = tmp_path / "pid"
    given = replace(
        settings(tmp_path, command=["sh", "-c", f"echo $$ > {pid}.new; mv {pid}.new {pid}; sleep 1000"], timeout_s=600),
        phoenix=PhoenixSettings(url="ws://127.0.0.1:1/socket/websocket"),
        publish=PublishSettings(mode="phoenix"),
    )
    began = time.monotonic()
    with Alerting(given, consumer) as alerting:
        alerting.evaluate()
        assert next(state for state in alerting.states if state.rule == "Backlog").state == "firing"
        while not pid.exists():
            assert time.monotonic() - began < PATIENCE_S
            time.sleep(0.01)
    assert time.monotonic() - began < 2 * PATIENCE_S
    while psutil.pid_exists(int(pid.read_text())):  # nobody would end the command at its time limit
        assert time.monotonic() - began < 3 * PATIENCE_S
        time.sleep(0.01)
