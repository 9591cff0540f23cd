"""A channel server in a process of its own that is never the limit: frames made beforehand, many in one write.

    python -m tests.bench.harness.blaster COUNT

prints its port. Each join is answered, and followed by COUNT results of the usual size, a hundred different ones.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from websockets.sync.server import ServerConnection, serve

from infertool.phoenix.frames import decode_text
from tests.embedded.channel_server import raw
from tests.support.phoenix_fake import Peer, polite

REFERENCE = Path(__file__).parents[3] / "fixtures" / "events" / "reference.json"
TOPIC = "public:results"
A_WRITE = 100


def result(number: int) -> dict[str, object]:
    return {
        "event_id": f"e-{number:09}",
        "request_id": "3f0c9a52-7d1e-4b8f-9a60-2c5be1d7e014",
        "status": "SUCCESS",
        "prediction": {"class": "positive", "confidence": 0.873},
        "processing_ms": 12.25,
        "attempts": 1,
        "received_at": "2026-11-23T10:15:30.123Z",
        "completed_at": "2026-11-23T10:15:30.135Z",
        "original_payload": json.loads(REFERENCE.read_bytes()),
    }


def main(count: int) -> None:
    write = b"".join(raw.frame(raw.TEXT, _text(number), masked=False) for number in range(A_WRITE))

    def handle(ws: ServerConnection) -> None:
        for message in ws:
            frame = decode_text(message)
            polite(Peer(ws, 0), frame)
            if frame.event == "phx_join":
                for _ in range(count // A_WRITE):
                    ws.socket.sendall(write)

    # A ping would come in the middle of what is written past the library.
    with serve(handle, "127.0.0.1", 0, ping_interval=None) as server:
        print(server.socket.getsockname()[1], flush=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdin.read()
        os._exit(0)


def _text(number: int) -> bytes:
    return json.dumps([None, None, TOPIC, "new_result", result(number)], separators=(",", ":")).encode()


if __name__ == "__main__":
    main(int(sys.argv[1]))
