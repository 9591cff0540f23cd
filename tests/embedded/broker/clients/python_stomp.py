"""The conversation of test_clients.py with stomp.py. Usage: python python_stomp.py PORT QUEUE VERSION."""

from __future__ import annotations

import json
import queue as queues
import sys
from collections.abc import Callable

import stomp
from stomp.utils import Frame

PORT, QUEUE, VERSION = int(sys.argv[1]), sys.argv[2], sys.argv[3]
KINDS = {"1.0": stomp.Connection10, "1.1": stomp.Connection11, "1.2": stomp.Connection12}


class Listener(stomp.ConnectionListener):  # type: ignore[misc]  # stomp.py has no types
    def __init__(self) -> None:
        self.frames: queues.Queue[Frame] = queues.Queue()

    def on_message(self, frame: Frame) -> None:
        self.frames.put(frame)

    on_receipt = on_error = on_message


def connected() -> tuple[stomp.Connection, Listener]:
    heartbeats = {} if VERSION == "1.0" else {"heartbeats": (5000, 5000)}
    connection = KINDS[VERSION]([("127.0.0.1", PORT)], auto_content_length=False, **heartbeats)
    listener = Listener()
    connection.set_listener("", listener)
    connection.connect("admin", "admin", wait=True)
    return connection, listener


def next_frame(listener: Listener, command: str) -> Frame:
    frame = listener.frames.get(timeout=120)
    assert frame.cmd == command, frame
    return frame


def told(frame: Frame) -> dict[str, str]:
    headers = frame.headers
    return {
        "body": frame.body,
        "redelivered": headers.get("redelivered", ""),
        "origin": headers.get("original-destination", ""),
    }


Each = Callable[[Frame], None]


def receive(
    connection: stomp.Connection, listener: Listener, name: str, ack: str, count: int, each: Each
) -> list[dict[str, str]]:
    connection.subscribe(name, id=name, ack=ack)
    got = []
    for _ in range(count):
        frame = next_frame(listener, "MESSAGE")
        got.append(told(frame))
        each(frame)
    return got


def send(connection: stomp.Connection, listener: Listener, name: str, body: str, **headers: str) -> None:
    connection.send(name, body, persistent="true", receipt=body, **headers)
    assert next_frame(listener, "RECEIPT").headers["receipt-id"] == body


def settle(connection: stomp.Connection, frame: Frame) -> None:
    deed = {"m0": "ack", "m1": "ack", "m2": "nack"}.get(frame.body)
    if deed is None:
        return
    if VERSION == "1.2":
        getattr(connection, deed)(frame.headers["ack"])
    elif VERSION == "1.1":
        getattr(connection, deed)(frame.headers["message-id"], frame.headers["subscription"])
    elif deed == "ack":
        connection.ack(frame.headers["message-id"])


def nothing(_: Frame) -> None:
    """Auto-acked."""


def main() -> None:
    first, listener = connected()
    for number in range(5):
        send(first, listener, f"/queue/{QUEUE}", f"m{number}", n=str(number))
    received = receive(first, listener, f"/queue/{QUEUE}", "client-individual", 5, lambda frame: settle(first, frame))
    first.disconnect(receipt="bye")
    next_frame(listener, "RECEIPT")

    second, listener = connected()
    left = 3 if VERSION == "1.0" else 2
    again = receive(second, listener, f"/queue/{QUEUE}", "auto", left, nothing)
    dead = [] if VERSION == "1.0" else receive(second, listener, f"/queue/DLQ.{QUEUE}", "auto", 1, nothing)
    kept = second.begin()
    send(second, listener, f"/queue/{QUEUE}.tx", "t0", transaction=kept)
    send(second, listener, f"/queue/{QUEUE}.tx", "t1", transaction=kept)
    second.commit(kept)
    dropped = second.begin()
    send(second, listener, f"/queue/{QUEUE}.tx", "t2", transaction=dropped)
    second.abort(dropped)
    send(second, listener, f"/queue/{QUEUE}.tx", "last")
    committed = receive(second, listener, f"/queue/{QUEUE}.tx", "auto", 3, nothing)
    second.disconnect(receipt="bye")
    sys.stdout.write(json.dumps({"received": received, "again": again, "dead": dead, "committed": committed}))


main()
