"""A consumer that answers requests on the broker in process, and its callers."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from infertool import brokers, codec
from infertool.brokers.memory.server import Server
from infertool.codec import JSON, MSGPACK
from infertool.consumer import consumer as consumer_module
from infertool.consumer import dead_letter_writer, intake
from infertool.consumer.consumer import Consumer, Until
from infertool.consumer.router import Published
from infertool.consumer.tracing import Exporter
from infertool.consumer.worker import Threads, WorkerPool
from infertool.message import BodyKind, Outgoing, Properties
from infertool.models.port import LoadedModel
from infertool.net.timing import FullJitter
from infertool.publishers import reply as reply_module
from infertool.publishers.local import LocalPublisher, discard
from infertool.publishers.port import Publication, Publisher, Rejection
from infertool.settings import Settings
from infertool.settings.broker import BrokerSettings
from infertool.settings.tree import (
    ConsumeSettings,
    ContractSettings,
    DeadLetterSettings,
    PublishSettings,
)
from infertool.telemetry import signals as o
from infertool.telemetry.stats import Stats
from tests.consumer.harness import LONG, wait_until

_numbers = itertools.count(1)
QUEUE, DEAD, ANSWERS = "requests", "dead", "answers"
CODECS = pytest.mark.parametrize("used", [JSON, MSGPACK], ids=lambda used: used.name)


def new_server(*options: Any) -> Server:
    """Return a broker of a name that no other has."""
    return Server(f"replies-{next(_numbers)}", *options)


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits between polls and tries."""
    monkeypatch.setattr(consumer_module, "POLL_S", 0.005)
    monkeypatch.setattr(intake, "POLL_S", 0.005)
    monkeypatch.setattr(reply_module, "AGAIN", FullJitter(0.001, 0.01))
    for name in ("REFUSED_BACKOFF", "ALONE_BACKOFF"):
        monkeypatch.setattr(dead_letter_writer, name, FullJitter(0.001, 0.01))


class Service:
    """A consumer that replies, in a thread."""

    def __init__(
        self,
        server: Server,
        state_dir: Path,
        model: Callable[[Any], Any],
        *,
        publisher: Publisher[Published] | None = None,
        pool: WorkerPool | None = None,
        default: Literal["json", "msgpack"] = "json",
        spans: Exporter | None = None,
        **consume: Any,
    ) -> None:
        self.address = server.new_address()
        self.stats = Stats()
        self.signals: list[o.Signal] = []
        settings = Settings(
            broker=BrokerSettings(
                url=self.address.url, queue=QUEUE, receipt_timeout_s=0.3, reconnect_base_s=0.001, reconnect_max_s=0.01
            ),
            deadletter=DeadLetterSettings(queue=DEAD),
            contract=ContractSettings(format=default),
            publish=PublishSettings(mode="phoenix" if publisher else "none"),
            consume=ConsumeSettings(
                reply=True,
                retry_base_s=0.001,
                retry_max_s=0.002,
                stop_deadline_s=LONG,
                **{"concurrency": 3, **consume},
            ),
        )
        self.consumer = Consumer(
            settings,
            pool or Threads(LoadedModel("m", "m", model), in_batches=False),
            open_broker=lambda on_connection: brokers.open(settings.broker, on_connection=on_connection),
            publisher=publisher or LocalPublisher("null", discard),
            name="c",
            state_dir=state_dir,
            observe=self._observe,
            until=Until(),
        )
        if spans:
            self.consumer.record(spans)
        self._thread = threading.Thread(target=self.consumer.run)
        self._thread.start()

    def _observe(self, signal: o.Signal) -> None:
        self.stats(signal)
        self.signals.append(signal)

    @property
    def counts(self) -> dict[str, int]:
        return self.stats.snapshot().counts

    def end(self) -> None:
        self.consumer.stop()
        self._thread.join(LONG)
        assert not self._thread.is_alive()
        assert self.consumer._fatal is None


Serve = Callable[..., Service]


def ask(
    server: Server,
    body: bytes,
    *,
    reply_to: str | None = ANSWERS,
    correlation_id: str | None = "c",
    headers: dict[str, str] | None = None,
    **properties: Any,
) -> None:
    known = Properties(reply_to=reply_to, correlation_id=correlation_id, **properties)
    server.send(Outgoing(QUEUE, body, BodyKind.BYTES, headers or {}, known))


def answers(server: Server, count: int = 1) -> list[Outgoing]:
    wait_until(lambda: len(server.held(ANSWERS)) >= count)
    return [stored.outgoing for stored in server.held(ANSWERS)]


def answer(server: Server) -> Outgoing:
    [only] = answers(server)
    return only


def value_of(reply: Outgoing) -> Any:
    used = codec.for_content_type(reply.properties.content_type or "")
    assert used is not None
    return codec.decode(used, reply.body)


def settled(server: Server) -> None:
    wait_until(lambda: not server.held(QUEUE))


class Phoenix(LocalPublisher[Published]):
    """Confirms at once, and notes what it gets; the events in `refused` are rejected."""

    def __init__(self, refused: frozenset[str] = frozenset()) -> None:
        super().__init__("Phoenix", discard)
        self.refused = refused
        self.published: list[tuple[str, str]] = []
        self.payloads: list[dict[str, Any]] = []

    def publish(self, publications: Sequence[Publication[Published]], *, crashes: int = 0) -> None:
        self.published += [(each.event, each.event_id) for each in publications]
        self.payloads += [json.loads(each.payload) for each in publications]
        rejected = [each for each in publications if each.event_id in self.refused and each.event == "new_result"]
        super().publish([each for each in publications if each not in rejected], crashes=crashes)
        if rejected:
            self._on_settled((), [Rejection(each, "it does not fit") for each in rejected])
