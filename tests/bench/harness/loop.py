"""One event's way through codec, in-flight events, model, document and settlement on one thread: no socket.

Runs as `python -m tests.bench.harness.loop BATCHES [metrics]`; a batch is 100 events. Counted under callgrind, it is
the same to the thousandth from run to run, also on a busy machine.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from infertool.brokers.stomp.frames import encode, encode_acks
from infertool.brokers.stomp.messages import to_message
from infertool.brokers.stomp.parser import FrameParser
from infertool.consumer.attempt import Attempts, Decoding, Preparation
from infertool.consumer.crash_guard import CrashGuard
from infertool.consumer.documents import Documents
from infertool.consumer.in_flight import InFlight
from infertool.consumer.router import RESULT_EVENT, Published, Router, Rules
from infertool.consumer.settlement import Settlement
from infertool.message import Message
from infertool.net.timing import FullJitter
from infertool.phoenix.frames import encode_push
from infertool.publishers.local import LocalPublisher
from infertool.publishers.port import Publisher
from infertool.publishers.timed import TimedPublisher
from infertool.telemetry import signals as o
from infertool.telemetry.stats import Stats
from tests.bench.harness.reference import REFERENCE
from tests.consumer.harness import OnlyAcks

BATCH = 100


class Acks(OnlyAcks):
    """Where acks go: encoded, and dropped."""

    def ack(self, messages: Sequence[Message]) -> None:
        encode_acks([message.token for message in messages])


def write(documents: Sequence[bytes]) -> None:
    for number, document in enumerate(documents):
        encode_push("1", str(number), "service:inference", RESULT_EVENT, document)


class Never:
    """Where what never happens here would go: retries and dead letters."""

    def submit(self, _events: object) -> None:
        raise AssertionError

    dead_letter = submit


def template() -> bytes:
    """Return a batch as ActiveMQ sends it, with `#` for the number of the batch."""
    body = REFERENCE.read_bytes()
    return b"".join([
        encode("MESSAGE", {
            "expires": "0", "destination": "/queue/bench", "ack": f"ID:host-40000-1795569703064-7:#{number}",
            "subscription": "s1-1", "priority": "4", "event_id": f"e-#-{number}",
            "message-id": f"ID:host-40000-1795569703064-6:1:-1:#:{number}", "persistent": "true",
            "timestamp": "1795569973230",
        }, body) + b"\n"
        for number in range(BATCH)
    ])  # fmt: skip


def main() -> None:
    metrics = sys.argv[2:] == ["metrics"]
    stats = Stats(detailed=metrics)
    in_flight = InFlight(memory=2000)
    guard = CrashGuard(Path("unused"), broker="b", queue="q", observe=stats)
    rules = Rules(max_attempts=3, max_rejections=3, backoff=FullJitter(0.1, 1.0))
    documents = Documents(include_payload=True, max_bytes=1_000_000)
    publisher: Publisher[Published] = LocalPublisher("bench", write)
    if metrics:
        publisher = TimedPublisher(publisher, stats)
    settlement = Settlement(Acks(), in_flight, guard, Never(), 2000, stats, detailed=metrics)
    router = Router(rules, documents, Never(), publisher, settlement, stats, fail=Never().submit)
    publisher.report_to(router.settled)
    prepare = Preparation(Decoding(1_000_000), lambda _event: None)
    attempt = Attempts(lambda _payload: {"class": "A"}, prepare)
    parser, data = FrameParser(), template()
    for batch in range(int(sys.argv[1])):
        frames = parser.feed(data.replace(b"#", b"%d" % batch))
        messages = [to_message(frame, "/queue/bench", 1) for frame in frames]
        stats(o.Received(len(messages), 0))
        router.outcomes([attempt(event) for event in in_flight.admit(messages).fresh])
    assert stats.snapshot().counts["succeeded"] == int(sys.argv[1]) * BATCH


if __name__ == "__main__":
    main()
