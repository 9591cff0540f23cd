"""A bare relay: a stomp.py listener that pushes each event over websocket-client, then acks. It confirms nothing.

Runs as `python -m tests.bench.harness.peers.relay PORT QUEUE URL` until it is ended;
prints a line once it is subscribed.
"""

from __future__ import annotations

import sys
import threading

import stomp
import websocket
from stomp.utils import Frame

from tests.bench.harness.peers import PREFETCH, TIMEOUT_S

TOPIC = "service:inference"


class Relay(stomp.ConnectionListener):  # type: ignore[misc]  # stomp.py has no types
    def __init__(self, source: stomp.Connection12, sink: websocket.WebSocket) -> None:
        self._source = source
        self._sink = sink
        self._sent = 1

    def on_message(self, frame: Frame) -> None:
        self._sent += 1
        event_id = frame.headers["event_id"]
        result = f'{{"event_id":"{event_id}","prediction":{{"class":"A"}},"original_payload":{frame.body}}}'
        self._sink.send(f'["1","{self._sent}","{TOPIC}","new_result",{result}]')
        self._source.ack(frame.headers["ack"])


def main() -> None:
    port, queue, url = sys.argv[1:]
    sink = websocket.create_connection(f"{url}?vsn=2.0.0", timeout=TIMEOUT_S, suppress_origin=True)
    sink.send(f'["1","1","{TOPIC}","phx_join",{{}}]')
    source = stomp.Connection12([("127.0.0.1", int(port))])
    source.set_listener("", Relay(source, sink))
    source.connect("admin", "admin", wait=True)
    threading.Thread(target=_drop_replies, args=(sink,), daemon=True).start()
    source.subscribe(queue, id="1", ack="client-individual", headers=PREFETCH)
    print("subscribed", flush=True)
    threading.Event().wait()


def _drop_replies(sink: websocket.WebSocket) -> None:
    while sink.recv():
        pass


if __name__ == "__main__":
    main()
