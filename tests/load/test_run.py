"""Runs against real brokers: the planned events arrive, and every count is right."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infertool import brokers
from infertool.errors import ConnectionLostError, RefusedError
from infertool.load import generator
from infertool.load.arrivals import Planned, Process
from infertool.load.headers import EnvelopeOptions
from infertool.load.options import LoadOptions
from infertool.load.payloads import PayloadOptions
from infertool.load.record import Counts, Run, RunWriter, Second, read
from infertool.load.report import RunFacts, notes
from infertool.load.run import Listeners, LoadRun
from infertool.load.sender import Sender
from infertool.load.tally import Measure
from infertool.load.work import WorkEnd
from infertool.message import BodyKind, Message, Outgoing
from infertool.net.connection_state import ConnectionState
from infertool.phoenix.frames import Frame
from infertool.settings import PhoenixSettings, Settings
from infertool.telemetry.latencies import Percentiles
from tests.support import activemq
from tests.support.brokers import NOBODYS, Links, new_queue, settings
from tests.support.embedded import EmbeddedBroker
from tests.support.phoenix_fake import Peer, fake_phoenix, polite
from tests.support.present import present
from tests.support.proxy import Proxy
from tests.support.rawstomp import RawStomp

LONG = 120


def options(queue: str, planned: Planned, **changes: Any) -> LoadOptions:
    return replace(LoadOptions(planned=planned, envelope=EnvelopeOptions(queue)), **changes)


def load(server: Any, asked: LoadOptions, listeners: Listeners | None = None, writer: RunWriter | None = None) -> Run:
    return LoadRun(Settings(broker=settings(server.url)), asked, listeners or Listeners(), {}).run(writer)


def drained(server: Any, queue: str, count: int) -> list[tuple[dict[str, str], bytes]]:
    """Take `count` messages out of a queue, or fewer if no more come."""
    raw = RawStomp(server.stomp_port)
    messages: list[tuple[dict[str, str], bytes]] = []

    def all_came() -> bool:
        messages.extend(raw.drain(queue))
        return len(messages) >= count

    assert until(all_came), len(messages)
    raw.close()
    return messages


def assert_adds_up(run: Run) -> None:
    counts = run.counts
    assert counts.planned == counts.sent + counts.dropped + counts.unsent
    counted = [second for second in run.seconds if second.t >= 0]
    for name in ("planned", "sent", "late", "dropped", "unsent"):
        assert sum(getattr(second, name) for second in counted) == getattr(counts, name)


@pytest.mark.parametrize("process", Process)
def test_the_planned_events_arrive(server: Any, process: Process) -> None:
    queue = new_queue()
    planned = Planned(qps=400, duration_s=1.5, warmup_s=0.5, process=process, seed=4)
    run = load(server, options(queue, planned))
    assert_adds_up(run)
    due = list(LoadOptions(planned=planned, envelope=EnvelopeOptions(queue)).schedule().times())
    messages = drained(server, queue, len(due))
    intended = [float(headers["intended_at"]) for headers, _ in messages]
    # The intended times are the plan's, to the microsecond.
    assert [time - intended[0] for time in intended] == pytest.approx([time - due[0] for time in due], abs=2e-6)
    assert all(float(headers["sent_at"]) >= float(headers["intended_at"]) for headers, _ in messages)
    assert run.counts.sent == len([time for time in due if time >= 0.5])
    assert run.histograms[Measure.SLIP].count == run.counts.sent
    assert run.elapsed_s >= 1.5
    assert [json.loads(body)["request_id"] for _, body in messages] == [f"req-{n:06d}" for n in range(len(due))]
    assert [headers["correlation-id"] for headers, _ in messages] == [f"req-{n:06d}" for n in range(len(due))]


@pytest.mark.parametrize("confirm", [False, True])
def test_two_runs_of_one_seed_send_the_same_bytes(server: Any, confirm: bool) -> None:
    def one(seed: int) -> list[tuple[str, bytes]]:
        queue = new_queue()
        asked = options(
            queue, Planned(qps=2000, count=500, seed=seed), confirm=confirm,
            payloads=PayloadOptions(assignments=("x=normal(0,1)",), size="normal(500,100)", poison_rate=0.1),
        )  # fmt: skip
        run = load(server, replace(asked, envelope=replace(asked.envelope, priority="9=0.3,4=0.7")))
        assert run.counts.sent == 500
        assert 20 < present(run.counts.poison) < 90
        assert run.counts.confirmed == (500 if confirm else None)
        messages = sorted(drained(server, queue, 500), key=lambda message: int(message[0]["event_id"].split("-")[1]))
        assert {headers["priority"] for headers, _ in messages} == {"9", "4"}
        return [(headers["priority"], body) for headers, body in messages]

    assert one(1) == one(1)
    assert one(1) != one(2)


@pytest.mark.parametrize("kind", BodyKind)
def test_the_bulk_sender_sends_the_same_bytes_as_send(server: Any, kind: BodyKind) -> None:
    queue = new_queue()
    broker = brokers.open(settings(server.url))
    broker.connect()
    bodies = [b"plain", b"with\0nul", b"", "größer".encode()]
    template = Outgoing(queue, b"", kind, {"colour": "50%:\\n", "a:b": "c"})
    bulk_sender = broker.bulk_sender(template, ["event_id"])
    bulk_sender.send([((f"x:{n}\n",), body) for n, body in enumerate(bodies)])
    for n, body in enumerate(bodies):
        broker.send(replace(template, body=body, headers={**template.headers, "event_id": f"x:{n}\n"}), lambda _: None)
    subscription = broker.subscribe(queue, window=50)
    taken: list[Message] = []
    while len(taken) < 2 * len(bodies):
        taken += subscription.receive(50, LONG)
    own = {"message-id", "ack", "timestamp", "receipt"}
    seen = [(m.kind, m.body, {k: v for k, v in m.headers.items() if k not in own}) for m in taken]
    assert seen[: len(bodies)] == seen[len(bodies) :]
    assert [m.body for m in taken[: len(bodies)]] == bodies
    assert taken[0].headers["event_id"] == "x:0\n"
    broker.close(5)
    with pytest.raises(ConnectionLostError):
        bulk_sender.send([(("1",), b"")])


def test_processes_and_connections_share_the_plan(server: Any) -> None:
    queue = new_queue()
    asked = options(
        queue, Planned(qps=300, duration_s=2, warmup_s=0.5), processes=2, connections=2, confirm=True,
        payloads=PayloadOptions(poison_rate=0.1),
    )  # fmt: skip
    run = load(server, asked)
    assert_adds_up(run)
    assert (run.counts.sent, run.counts.confirmed) == (600, 600)
    assert run.histograms[Measure.SLIP].count == run.histograms[Measure.SEND].count == 600
    numbers = sorted(int(headers["event_id"].split("-")[1]) for headers, _ in drained(server, queue, 750))
    assert numbers == list(range(750))


@pytest.mark.parametrize("confirm", [False, True])
def test_refused_events_do_not_count_as_sent(server: Any, confirm: bool) -> None:
    run = load(server, options(NOBODYS, Planned(qps=100, count=30), confirm=confirm))
    assert_adds_up(run)
    assert (run.counts.sent, run.counts.unsent) == (0, 30)
    assert "the broker refused 30 events" in run.notes[0]


@pytest.mark.parametrize("closed", [None, 2])
def test_events_past_the_limits_of_the_wire_do_not_count_as_sent(server: Any, closed: int | None) -> None:
    planned = Planned(count=5) if closed else Planned(qps=100, count=5)
    asked = options(new_queue(), planned, confirm=True, closed=closed)
    run = load(server, replace(asked, envelope=replace(asked.envelope, headers=(f"h={'x' * 20_000}",))))
    assert (run.counts.planned, run.counts.sent, run.counts.unsent) == (5, 0, 5)
    assert any("the broker refused 5 events: its header h has more than" in note for note in run.notes)
    assert_adds_up(run)


def test_sending_that_fails_is_no_report(embedded_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_sender: Sender, _backlog: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Sender, "send_some", fail)
    with pytest.raises(MemoryError):
        load(embedded_broker, options(new_queue(), Planned(qps=100, count=5)))


def test_a_rate_that_cannot_be_met_is_noted(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "OVERTIME_S", 1.0)
    queue = f"/topic/load.{time.monotonic_ns()}"
    run = load(server, options(queue, Planned(qps=500_000, duration_s=1)))
    assert_adds_up(run)
    counts = run.counts
    assert counts.planned == 500_000
    assert counts.dropped > 0
    assert counts.late > counts.sent / 2
    assert "was the limit" in run.notes[0]
    assert [note for note in run.notes if "events were dropped: they" in note]


@pytest.mark.parametrize(
    ("refused", "note"), [(0, "the generator was the limit"), (89, "the generator was the limit"), (90, "says nothing")]
)
def test_who_was_the_limit_where_the_broker_refuses(refused: int, note: str) -> None:
    facts = RunFacts(
        options=options("/queue/q", Planned(qps=100, duration_s=1)),
        counts=Counts(planned=100, sent=100, late=90), elapsed_s=1.0, planned_s=1.0, cpu_s=1.0,
        slip_ms=Percentiles(), end=WorkEnd(refusals={"no": refused} if refused else {}), losses={}, dead_exact=True,
    )  # fmt: skip
    told = notes(facts)
    assert note in told[-1]
    assert len(told) == 1 + bool(refused)


@pytest.mark.parametrize(("late", "noted"), [(0, False), (1, True)])
def test_what_a_stop_leaves_unsent_is_no_fault_of_the_generator(late: int, noted: bool) -> None:
    facts = RunFacts(
        options=options("/queue/q", Planned(qps=100)), counts=Counts(planned=20, sent=18, late=late, dropped=2),
        elapsed_s=0.2, planned_s=0.2, cpu_s=0.1, slip_ms=Percentiles(), end=WorkEnd(drops={generator.AT_STOP: 2}),
        losses={}, dead_exact=True,
    )  # fmt: skip
    assert any("1 of 20 events were more than 10 ms late" in note for note in notes(facts)) == noted
    assert any("limit" in note or "in time" in note for note in notes(facts)) == noted


def test_events_that_are_too_late_are_dropped_and_counted(embedded_broker: EmbeddedBroker) -> None:
    queue = f"/topic/load.{time.monotonic_ns()}"
    run = load(embedded_broker, options(queue, Planned(qps=500_000, duration_s=1), max_late_s=0.05))
    assert_adds_up(run)
    assert run.counts.dropped > 0
    # On a busy machine all of them may be late.
    assert run.counts.sent == 0 or present(run.histograms[Measure.SLIP].percentiles().max) <= 50.1


def test_a_broker_restart() -> None:
    broker = EmbeddedBroker().start()
    links = Links()
    seconds: list[Second] = []
    listeners = Listeners(on_second=seconds.append, on_connection=lambda _side, event: links(event))
    asked = options(new_queue(), Planned(qps=200))
    run = LoadRun(Settings(broker=settings(broker.url, reconnect_max_s=0.2)), asked, listeners, {})
    finished: list[Run] = []
    thread = threading.Thread(target=lambda: finished.append(run.run()))
    thread.start()
    assert until(lambda: run.tally.totals()["sent"] > 50)
    broker.stop()
    links.wait_for(ConnectionState.LOST)
    assert until(lambda: run.tally.totals()["unsent"] > 50)
    broker.start()
    before = run.tally.totals()["sent"]
    assert until(lambda: run.tally.totals()["sent"] > before + 50)
    run.stop()
    thread.join(LONG)
    broker.stop()
    assert_adds_up(finished[0])
    assert finished[0].counts.unsent > 50
    assert any("the connection to the broker was lost" in note for note in finished[0].notes)


def test_a_topic_that_is_lost_on_a_connection_that_is_not(embedded_broker: EmbeddedBroker) -> None:
    """What its channel broadcasts meanwhile is not seen, and is no loss of the bus."""
    crashed: list[str] = []

    def answer(peer: Peer, frame: Frame) -> None:
        polite(peer, frame)
        if frame.event == "phx_join" and frame.topic == "public:results" and not crashed:
            crashed.append(frame.topic)
            peer.crash(frame)

    asked = options(new_queue(), Planned(qps=20, duration_s=0.5), e2e=True, settle_s=0.1)
    with fake_phoenix(answer) as fake:
        given = Settings(broker=settings(embedded_broker.url), phoenix=PhoenixSettings(url=fake.url))
        run = LoadRun(given, asked, Listeners(), {}).run()
    [note] = [note for note in run.notes if "public:" in note]
    assert note.startswith("public:results was lost for a while (the channel crashed): ")


def until(condition: Callable[[], object], timeout_s: float = LONG) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


def test_closed_model(server: Any) -> None:
    queue = new_queue()
    run = load(server, options(queue, Planned(count=200, warmup_s=0.3), closed=5, confirm=True))
    assert_adds_up(run)
    assert run.counts.sent == run.counts.confirmed == run.histograms[Measure.SEND].count == 200
    assert Measure.SLIP not in run.histograms
    assert run.info.model == "closed"
    assert len(drained(server, queue, 201)) > 200


def test_a_saved_run_equals_the_reported_run(embedded_broker: EmbeddedBroker, tmp_path: Path) -> None:
    asked = options(new_queue(), Planned(qps=200, duration_s=2.2, warmup_s=1), confirm=True)
    run = LoadRun(Settings(broker=settings(embedded_broker.url)), asked, Listeners(), {"--qps": "200"})
    with RunWriter(tmp_path / "run.jsonl", run.info) as writer:
        finished = run.run(writer)
    kept = read(tmp_path / "run.jsonl")
    assert kept.complete
    assert kept.counts == finished.counts
    assert kept.seconds == finished.seconds
    assert kept.info == finished.info
    assert [second.t for second in kept.seconds][:3] == [-1, 0, 1]


def test_a_wrong_password(activemq: activemq.ActiveMQ) -> None:
    bad = settings(activemq.url, user="nobody", password=settings(activemq.url).password)
    asked = options(new_queue(), Planned(qps=1, count=1))
    with pytest.raises(RefusedError, match="refused the login"):
        LoadRun(Settings(broker=bad), asked, Listeners(), {}).run()


def test_a_broker_that_takes_nothing_is_the_limit(embedded_broker: EmbeddedBroker) -> None:
    """As with producer flow control: the broker stays connected and does not read."""
    with Proxy(embedded_broker.stomp_port) as proxy:
        url = f"stomp://127.0.0.1:{proxy.port}"
        asked = options(
            new_queue(), Planned(qps=1000), max_late_s=0.5, payloads=PayloadOptions(documents=(b"{}",), size="20000")
        )
        run = LoadRun(Settings(broker=settings(url)), asked, Listeners(), {})
        finished: list[Run] = []
        thread = threading.Thread(target=lambda: finished.append(run.run()))
        thread.start()
        assert until(lambda: run.tally.totals()["sent"] > 50)
        proxy.stall()
        stalled = run.tally.totals()["planned"]
        # The plan goes on: 3 s of events are due, and those that no buffer took are too late at the end.
        assert until(lambda: run.tally.totals()["planned"] > stalled + 3000)
        proxy.resume()
        assert until(lambda: run.tally.totals()["dropped"] > 500)
        run.stop()
        thread.join(LONG)
    assert_adds_up(finished[0])
    assert finished[0].counts.dropped > 500
    assert "the broker was the limit" in finished[0].notes[0]
    assert "it took nothing" in finished[0].notes[0]
