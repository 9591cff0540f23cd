"""Outcomes of a run's events: seen, queued or lost, and the run's own dead letters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from infertool import brokers
from infertool.load.arrivals import Planned
from infertool.load.record import Run
from infertool.load.report import document, facts
from infertool.load.run import Listeners, LoadRun
from infertool.message import Message, Outgoing
from infertool.settings import DeadLetterSettings, PhoenixSettings, Settings
from tests.channels.conftest import Pusher
from tests.load.runs import texts
from tests.load.test_run import LONG, options
from tests.support.brokers import new_queue, numbered, send_all, settings
from tests.support.hub import HubProcess
from tests.support.present import present


@pytest.fixture(scope="module")
def hub() -> Iterator[HubProcess]:
    with HubProcess() as running:
        yield running


class Bus:
    """A queue with its dead letters, on one of the brokers, and a consumer made of a function."""

    def __init__(self, server: Any, hub: HubProcess) -> None:
        self.queue, self.dlq = new_queue(), new_queue()
        self.broker = brokers.open(settings(server.url))
        self.broker.connect()
        self.pusher = Pusher(hub.url)
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self.settings = Settings(
            broker=settings(server.url),
            phoenix=PhoenixSettings(url=hub.url),
            deadletter=DeadLetterSettings(queue=self.dlq),
        )

    def waiting(self, queue: str, count: int) -> None:
        send_all(self.broker, numbered(queue, count))

    def consume(self, work: Callable[[Message], None]) -> None:
        subscription = self.broker.subscribe(self.queue, window=10)

        def run() -> None:
            while not self._stopped.is_set():
                for message in subscription.receive(10, 0.1):
                    work(message)
                    subscription.ack([message])

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def succeed(self, message: Message) -> None:
        self.pusher.push("new_result", {"event_id": message.headers["event_id"], "status": "SUCCESS"})

    def report(self, message: Message) -> None:
        self.pusher.push("inference_failed", {"event_id": message.headers["event_id"], "status": "FAILED"})

    def fail(self, message: Message) -> None:
        """Report a failure, then dead-letter it, as the consumer does; add a dead letter of another producer."""
        self.report(message)
        letters = [
            Outgoing(self.dlq, message.body, message.kind, {"event_id": event_id})
            for event_id in (message.headers["event_id"], "somebody-elses", "lg00000000-1-1")
        ]
        send_all(self.broker, letters)

    def load(self, planned: Planned, settle_s: float) -> Run:
        return LoadRun(self.settings, options(self.queue, planned, e2e=True, settle_s=settle_s), Listeners(), {}).run()

    def close(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(LONG)
        self.pusher.close()
        self.broker.close(5)


@pytest.fixture
def bus(server: Any, hub: HubProcess) -> Iterator[Bus]:
    made = Bus(server, hub)
    yield made
    made.close()


def test_events_waiting_behind_others_are_queued_and_not_lost(bus: Bus) -> None:
    bus.waiting(bus.queue, 70)
    run = bus.load(Planned(qps=100, count=27), 0.5)
    counts = run.counts
    assert (counts.sent, counts.queued, counts.lost) == (27, 27, 0)
    assert (counts.queue_before, counts.queue_after) == (70, 97)
    told = texts(facts(document(run)))
    assert "27 still queued, 0 lost" in told["came out"]
    assert told["queue"] == "70 messages at the start, 97 at the end"
    assert [note for note in run.notes if note.startswith("27 events were not seen, and may still be in the queue")]


def test_queued_and_lost_events_are_distinguished(bus: Bus) -> None:
    """Of 40 events 10 are seen, 15 vanish, and 15 stay in the queue."""
    taken: list[Message] = []
    subscription = bus.broker.subscribe(bus.queue, window=1)

    def run() -> None:
        while not bus._stopped.is_set():
            for message in subscription.receive(1, 0.1):
                taken.append(message)
                if len(taken) <= 10:
                    bus.succeed(message)
                subscription.ack([message])
                if len(taken) == 25:
                    return

    bus._threads.append(threading.Thread(target=run))
    bus._threads[-1].start()
    counts = bus.load(Planned(qps=200, count=40), 3.0).counts
    assert (counts.sent, counts.results) == (40, 10)
    assert (counts.queued, counts.lost) == (15, 15)


def test_unseen_events_are_lost_if_the_queue_is_empty(bus: Bus) -> None:
    bus.waiting(bus.queue, 5)
    bus.consume(lambda _message: None)
    counts = bus.load(Planned(qps=100, count=20), 3.0).counts
    assert (counts.sent, counts.queued, counts.lost, counts.queue_after) == (20, 0, 20, 0)


@pytest.mark.parametrize("older", [0, 700])
def test_dead_letters_of_others_are_not_counted(bus: Bus, older: int) -> None:
    """Older ones, those of other producers, and those of another run."""
    bus.waiting(bus.dlq, older)
    bus.consume(lambda message: bus.fail(message) if int(message.headers["event_id"].split("-")[1]) % 2 else None)
    run = bus.load(Planned(qps=100, count=30, warmup_s=0.2), 3.0)
    assert run.counts.failures == run.counts.dead_lettered == 15
    assert not [note for note in run.notes if "dead letter" in note]


def test_a_failure_without_a_dead_letter_is_not_counted_as_one(bus: Bus) -> None:
    def work(message: Message) -> None:
        bus.report(message)
        send_all(bus.broker, [Outgoing(bus.dlq, b"{}", message.kind, {"event_id": "somebody-elses"})])

    bus.consume(work)
    counts = bus.load(Planned(qps=100, count=10), 2.0).counts
    assert (counts.failures, counts.dead_lettered) == (10, 0)


def test_a_run_ends_when_all_events_are_accounted_for(bus: Bus) -> None:
    """Also if failures leave no dead letters. The settling time is ten minutes, the limit of the test is less."""
    bus.consume(bus.report)
    finished: list[Run] = []
    thread = threading.Thread(target=lambda: finished.append(bus.load(Planned(qps=100, count=10), 600.0)), daemon=True)
    thread.start()
    thread.join(LONG)
    assert finished[0].counts.failures == 10


def test_result_rates_are_those_of_the_results_not_of_the_sending(bus: Bus) -> None:
    """A slow consumer: all results come, at a lower rate than the events were sent."""
    pause = threading.Event()

    def work(message: Message) -> None:
        pause.wait(0.1)
        bus.succeed(message)

    bus.consume(work)
    run = bus.load(Planned(qps=100, count=40), 30.0)
    report = document(run)
    assert run.counts.results == 40
    assert present(run.came_out_s) >= 4.0
    assert report["planned_rate"] == 100
    assert report["result_rate"] == report["e2e"]["rate"] <= 10
