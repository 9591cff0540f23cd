"""confluent-kafka: `consume(500)`, and each record's offset stored, to be committed each second.

Runs as `python -m tests.bench.harness.peers.confluent_loop PORT TOPIC COUNT [model]`; with `model` each body is decoded
and a no-op model's result encoded, as infertool does.
"""

from __future__ import annotations

import sys
import time
import uuid
from typing import Any

import orjson
from confluent_kafka import Consumer

from tests.bench.harness.peers import Clock

BATCH = 500


def main() -> None:
    port, topic, count, *mode = sys.argv[1:]
    clock = Clock(int(count))
    consumer = Consumer(configuration(port, str(uuid.uuid4())))
    consumer.subscribe([topic])
    over = False
    while not over:
        records = consumer.consume(BATCH, 0.1)
        if not records:
            continue
        clock.begin()
        for record in records:
            assert record.error() is None, record.error()
            if mode:
                work(record)
            consumer.store_offsets(record)
        over = clock.settled(len(records))
    consumer.close()
    print(clock.rate)


def configuration(port: str, group: str) -> dict[str, Any]:
    return {
        "bootstrap.servers": f"127.0.0.1:{port}", "group.id": group, "auto.offset.reset": "earliest",
        "enable.auto.offset.store": False, "auto.commit.interval.ms": 1000,
    }  # fmt: skip


def work(record: Any) -> bytes:
    body = record.value()
    payload = orjson.loads(body)
    now = time.time()
    return orjson.dumps({
        "event_id": dict(record.headers())["event_id"].decode(),
        "request_id": payload.get("request_id"),
        "status": "SUCCESS",
        "prediction": {"class": "A"},
        "processing_ms": 0.001,
        "attempts": 1,
        "received_at": now,
        "completed_at": now,
        "original_payload": orjson.Fragment(body),
    })  # fmt: skip


if __name__ == "__main__":
    main()
