"""Consumers in threads of one process, on queues with partitions of the broker in process."""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from infertool import brokers
from infertool.brokers.memory.partitioned_subscription import PartitionedSubscription
from infertool.brokers.memory.partitions import KEY
from infertool.brokers.memory.server import Server
from infertool.consumer.consumer import Consumer, Until
from infertool.consumer.processes.pool import Processes
from infertool.consumer.processes.wire import WorkerConfig
from infertool.consumer.router import Published
from infertool.consumer.worker import Threads, WorkerPool
from infertool.message import Message, Outgoing
from infertool.models.loader import load
from infertool.publishers.local import LocalPublisher
from infertool.publishers.port import Confirmation, Publication
from infertool.settings import ModelSettings, Settings
from infertool.settings.broker import BrokerSettings
from infertool.settings.tree import ConsumeSettings, DeadLetterSettings
from infertool.telemetry.signals import Signal, Warned
from infertool.telemetry.stats import Stats
from tests.consumer.harness import LONG, wait_until

numbers = itertools.count(1)
QUEUE, OTHER, DEAD = "events", "other", "dead"
MODEL = "fixtures/models/waits.py:Waits"
COUNT = 6


class Recorder(LocalPublisher[Published]):
    """Counts publications by status and event, and confirms them, unless it `holds` confirmations back."""

    def __init__(self) -> None:
        super().__init__("recorder", self._record)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.documents: list[dict[str, Any]] = []
        self.holds = False
        self.held: list[Publication[Published]] = []

    def publish(self, publications: Sequence[Publication[Published]], *, crashes: int = 0) -> None:
        if not self.holds:
            super().publish(publications, crashes=crashes)
            return
        self._record([publication.payload for publication in publications])
        self.held += publications

    def confirm(self) -> None:
        self._on_settled([Confirmation(publication, "late") for publication in self.held], ())

    def _record(self, documents: Sequence[bytes]) -> None:
        for document in map(json.loads, documents):
            self.documents.append(document)
            self.counts[document["status"], document["event_id"]] += 1

    def of(self, status: str = "SUCCESS") -> dict[str, int]:
        return {event_id: count for (found, event_id), count in self.counts.items() if found == status}


class Run:
    """A consumer in a thread, at an address of its own."""

    def __init__(
        self,
        server: Server,
        state_dir: Path,
        pool: WorkerPool,
        queue: str,
        *,
        retry_topics: Sequence[str] = (),
        **consume: Any,
    ) -> None:
        self.address = server.new_address()
        self.publisher = Recorder()
        self.stats = Stats()
        self.signals: list[Signal] = []
        settings = Settings(
            broker=BrokerSettings(url=self.address.url, queue=queue, receipt_timeout_s=LONG, reconnect_base_s=0.001),
            deadletter=DeadLetterSettings(queue=DEAD, retry_topics=list(retry_topics)),
            consume=ConsumeSettings(
                **{"concurrency": 1, "window": 50, "stop_deadline_s": LONG, "retry_base_s": 0.001, **consume}
            ),
        )
        self.consumer = Consumer(
            settings,
            pool,
            open_broker=lambda on_connection: brokers.open(settings.broker, on_connection=on_connection),
            publisher=self.publisher,
            name="c",
            state_dir=state_dir,
            observe=self._note,
            until=Until(),
        )
        self._thread = threading.Thread(target=self.consumer.run)
        self._thread.start()
        wait_until(lambda: self.consumer._gauge)

    def _note(self, signal: Signal) -> None:
        self.signals.append(signal)
        self.stats(signal)

    @property
    def warnings(self) -> list[str]:
        return [signal.text for signal in self.signals if isinstance(signal, Warned)]

    @property
    def counts(self) -> dict[str, int]:
        return self.stats.snapshot().counts

    @property
    def released(self) -> list[Message]:
        subscriptions = self.consumer._broker._supervisor._subscriptions  # type: ignore[attr-defined]
        return [
            message for each in subscriptions if isinstance(each, PartitionedSubscription) for message in each.released
        ]

    def end(self) -> None:
        self.consumer.stop()
        self._thread.join(LONG)
        assert not self._thread.is_alive()
        assert self.consumer._fatal is None
        counts = self.counts
        ended = sum(counts[name] for name in ("succeeded", "dead_lettered", "delayed", "handed_back", "revoked"))
        assert counts["received"] - counts["recognised"] == ended, counts


Start = Callable[..., Run]


def threads(*, in_batches: bool = False) -> AbstractContextManager[WorkerPool]:
    return nullcontext(Threads(load(MODEL), in_batches=in_batches))


def processes() -> AbstractContextManager[WorkerPool]:
    return Processes(
        WorkerConfig(ModelSettings(spec=MODEL), in_batches=False, max_tasks=0, memory_bytes=0), 1, lambda _text: None
    )


def calls(hold: Path) -> int:
    """Return the number of calls of the model that have begun."""
    noted = Path(f"{hold}.calls")
    return len(noted.read_text(encoding="ascii").splitlines()) if noted.exists() else 0


def send(server: Server, count: int = COUNT, **payload: Any) -> list[str]:
    """Send events of one partition, all with this payload; return their ids."""
    ids = [f"e{next(numbers)}" for _ in range(count)]
    for event_id in ids:
        body = json.dumps({"event_id": event_id, **payload}).encode()
        server.send(Outgoing(QUEUE, body, headers={KEY: "k", "event_id": event_id}))
    return ids


def partition_of(server: Server) -> str:
    [name] = {stored.partition for stored in server.held(QUEUE)}
    return name
