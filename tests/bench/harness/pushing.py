"""Pushes results to a hub at a steady rate: `python -m tests.bench.harness.pushing URL RATE SECONDS`.

Prints the number of pushes at the end.
"""

from __future__ import annotations

import json
import sys
import time

import websocket

_TICK_S = 0.02


def push(url: str, rate: float, seconds: float) -> int:
    connection = websocket.create_connection(f"{url}?vsn=2.0.0", suppress_origin=True)
    connection.send(json.dumps(["1", "1", "service:inference", "phx_join", {}]))
    connection.recv()
    assert connection.sock
    total, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        while total < rate * passed:
            total += 1
            connection.send(json.dumps(["1", None, "service:inference", "new_result", _result(total)]))
        connection.sock.setblocking(False)
        try:
            while connection.sock.recv(1 << 16):
                pass
        except BlockingIOError:
            connection.sock.setblocking(True)
        time.sleep(_TICK_S)
    time.sleep(0.5)
    connection.close()
    return total


def _result(number: int) -> dict[str, object]:
    name = f"req-{number:06d}"
    return {
        "event_id": name, "request_id": name, "status": "SUCCESS", "processing_ms": number % 400 + 100.5,
        "prediction": {"class": "ABC"[number % 3], "confidence": number % 100 / 100}, "attempts": 1,
        "received_at": "2026-01-01T00:00:00.000Z", "completed_at": "2026-01-01T00:00:00.000Z",
        "original_payload": {"event_id": name, "request_id": name, "sent_at": time.time(), "features": [0.5] * 8},
    }  # fmt: skip


if __name__ == "__main__":
    print(push(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))
