"""websocket-client: one push after the other, 64 of them unanswered at most; a reply only makes room for the next.

Runs as `python -m tests.bench.harness.peers.websocket_client URL COUNT`. It consumes nothing, and each push is the same
document, encoded beforehand, as long as those that infertool makes of the reference event.
"""

from __future__ import annotations

import json
import sys

import orjson
import websocket

from tests.bench.harness.peers import TIMEOUT_S, Clock
from tests.bench.harness.reference import REFERENCE

OUTSTANDING = 64
TOPIC = "service:inference"
RESULT = orjson.dumps({
    "event_id": "e-10000",
    "request_id": "3f0c9a52-7d1e-4b8f-9a60-2c5be1d7e014",
    "status": "SUCCESS",
    "prediction": {"class": "A"},
    "processing_ms": 0.001,
    "attempts": 1,
    "received_at": "2026-11-24T10:15:30.123Z",
    "completed_at": "2026-11-24T10:15:30.123Z",
    "original_payload": orjson.Fragment(REFERENCE.read_bytes()),
}).decode()  # fmt: skip


def main() -> None:
    url, count = sys.argv[1], int(sys.argv[2])
    connection = websocket.create_connection(f"{url}?vsn=2.0.0", timeout=TIMEOUT_S, suppress_origin=True)
    connection.send(json.dumps(["1", "1", TOPIC, "phx_join", {}]))
    connection.recv()
    clock = Clock(count)
    clock.begin()
    sent = answered = 0
    while answered < count:
        while sent < count and sent - answered < OUTSTANDING:
            sent += 1
            connection.send(f'["1","{sent + 1}","{TOPIC}","new_result",{RESULT}]')
        assert '"phx_reply"' in connection.recv()
        answered += 1
        clock.settled()
    connection.close()
    print(clock.rate)


if __name__ == "__main__":
    main()
