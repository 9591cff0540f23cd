"""A dashboard for tests: joins the public topics over a bare websocket-client and notes every event."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from typing import Any

import websocket

TOPICS = ("public:results", "public:alerts")
# The ref of the heartbeat whose answer is the last frame that is read.
_LAST = "last"
# A server ends a viewer that says nothing for a minute, also one that it sends something all the time. Seconds.
_BEAT_S = 10.0


class Viewer:
    """Notes what is broadcast. After the server went away it connects again, as a browser would."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}?vsn=2.0.0"
        self.results: Counter[str] = Counter()
        self.alerts: Counter[str] = Counter()
        self.payloads: dict[str, Any] = {}
        self.batches = 0
        self._changed = threading.Condition()
        self._joined = 0
        self._closing = threading.Event()
        self._connection: websocket.WebSocket | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        with self._changed:
            assert self._changed.wait_for(lambda: self._joined >= len(TOPICS), 120)

    def close(self) -> None:
        """Note what the server has sent until now, and leave."""
        self._closing.set()
        if self._connection:
            with contextlib.suppress(OSError, websocket.WebSocketException):
                self._connection.send(_heartbeat(_LAST))
        self._thread.join(120)

    def __str__(self) -> str:
        return f"seen: {len(self.results)} results, {len(self.alerts)} alerts, in {self._joined} joins"

    @property
    def seen(self) -> set[str]:
        return set(self.results) | set(self.alerts)

    def wait(self, count: int, timeout_s: float) -> bool:
        """Wait until `count` different events were seen."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.seen) >= count, timeout_s)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._follow(websocket.create_connection(self._url, timeout=1, suppress_origin=True))
            except (OSError, websocket.WebSocketException):
                self._closing.wait(0.05)

    def _follow(self, connection: websocket.WebSocket) -> None:
        for number, topic in enumerate(TOPICS):
            connection.send(json.dumps([str(number), str(number), topic, "phx_join", {}]))
        self._connection = connection
        last = False
        beat_at = 0.0
        while not last:
            if time.monotonic() >= beat_at:
                connection.send(_heartbeat("h"))
                beat_at = time.monotonic() + _BEAT_S
            try:
                text = connection.recv()
            except websocket.WebSocketTimeoutException:
                if self._closing.is_set():
                    break
                continue
            if not text:
                return
            frame = json.loads(text)
            self._note(frame)
            last = frame[1] == _LAST
        connection.close()

    def _note(self, frame: list[Any]) -> None:
        _, ref, _, event, payload = frame
        with self._changed:
            if event == "phx_reply" and ref in {"0", "1"}:
                self._joined += 1
            elif event == "inference_failed":
                self._count(self.alerts, payload)
            elif event in {"new_result", "new_results"}:
                self.batches += event == "new_results"
                for document in payload["results"] if event == "new_results" else [payload]:
                    self._count(self.results, document)
            self._changed.notify_all()

    def _count(self, seen: Counter[str], document: dict[str, Any]) -> None:
        seen[document["event_id"]] += 1
        self.payloads[document["event_id"]] = document


def _heartbeat(ref: str) -> str:
    return json.dumps([None, ref, "phoenix", "heartbeat", {}])
