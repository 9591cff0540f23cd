"""One event's way through codec, in-flight events, model, document and settlement on one thread: no socket.

Runs as `python -m tests.bench.harness.loop BATCHES`; a batch is 100 events. Counted under callgrind, it is the same to
the thousandth from run to run, also on a busy machine.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from infertool.brokers.stomp.frames import encode, encode_acks
from infertool.brokers.stomp.messages import to_message
from infertool.brokers.stomp.parser import FrameParser
from infertool.consumer.attempt import Attempts, Preparation
from infertool.consumer.crash_guard import CrashGuard
from infertool.consumer.delivery import LocalPublisher
from infertool.consumer.documents import Documents
from infertool.consumer.in_flight import InFlight
from infertool.consumer.push_batches import PushBatches
from infertool.consumer.router import Router, Rules
from infertool.message import Message
from infertool.net.backoff import FullJitter
from infertool.phoenix.frames import encode_push
from infertool.phoenix.pending_pushes import Push
from infertool.telemetry import signals as o
from infertool.telemetry.stats import Stats
from tests.bench.harness.reference import REFERENCE

BATCH = 100


class Acks:
    """Where acks go: encoded, and dropped."""

    def ack(self, messages: Sequence[Message]) -> None:
        encode_acks([message.token for message in messages])


def write(pushes: Sequence[Push]) -> None:
    for number, push in enumerate(pushes):
        encode_push("1", str(number), "service:inference", push.event, push.payload)


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
    stats = Stats()
    in_flight = InFlight(memory=2000)
    guard = CrashGuard(Path("unused"), broker="b", queue="q", observe=stats)
    rules = Rules(max_attempts=3, max_refusals=3, backoff=FullJitter(0.1, 1.0))
    documents = Documents(include_payload=True, max_bytes=1_000_000)
    router = Router(rules, documents, PushBatches(1, 1_000_000, print), in_flight, guard, stats)
    router.publisher = LocalPublisher(write, router.results)
    router.subscription = Acks()
    prepare = Preparation(max_body_bytes=1_000_000, on_redelivered=lambda _event: None)
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
