"""A Phoenix server that behaves as badly as a test wants; well by default."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from infertool.phoenix.frames import Frame, decode_text, encode_text


class Peer:
    """One client, from the server's side."""

    def __init__(self, ws: ServerConnection, number: int) -> None:
        self.ws = ws
        self.number = number

    def reply(self, frame: Frame, status: str = "ok", response: Any = None) -> None:
        payload = {"response": {} if response is None else response, "status": status}
        self.send(frame.join_ref, frame.ref, frame.topic, "phx_reply", payload)

    def unmatched(self, frame: Frame) -> None:
        payload = {"response": {"reason": "unmatched topic"}, "status": "error"}
        self.send(None, frame.ref, frame.topic, "phx_reply", payload)

    def crash(self, frame: Frame) -> None:
        self.send(frame.join_ref, frame.join_ref, frame.topic, "phx_error", {})

    def close_channel(self, frame: Frame) -> None:
        self.send(frame.join_ref, frame.join_ref, frame.topic, "phx_close", {})

    def broadcast(self, topic: str, event: str, payload: Any) -> None:
        self.send(None, None, topic, event, payload)

    def send(self, join_ref: Any, ref: Any, topic: str, event: str, payload: Any) -> None:
        self.ws.send(encode_text(join_ref, ref, topic, event, payload).decode())

    def drop(self) -> None:
        """End TCP without a close frame."""
        self.ws.socket.shutdown(socket.SHUT_RDWR)


OnFrame = Callable[[Peer, Frame], None]


def polite(peer: Peer, frame: Frame) -> None:
    """Answer everything with ok."""
    peer.reply(Frame(None, frame.ref, "phoenix", "", None) if frame.topic == "phoenix" else frame)


def is_push(frame: Frame) -> bool:
    return frame.topic != "phoenix" and not frame.event.startswith("phx_")


class FakePhoenix:
    """Records every frame; `on_frame` answers."""

    def __init__(self, on_frame: OnFrame) -> None:
        self.on_frame = on_frame
        self.frames: list[Frame] = []
        self.peers: list[Peer] = []
        self.changed = threading.Condition()
        self.port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/socket/websocket"

    def serve(self, ws: ServerConnection) -> None:
        peer = Peer(ws, len(self.peers))
        with self.changed:
            self.peers.append(peer)
            self.changed.notify_all()
        with contextlib.suppress(ConnectionClosed, OSError):
            for message in ws:
                frame = decode_text(message)
                with self.changed:
                    self.frames.append(frame)
                    self.changed.notify_all()
                self.on_frame(peer, frame)

    def wait_for(self, condition: Callable[[], object], timeout_s: float = 90) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, timeout_s), "the server waited in vain"

    def events(self, topic: str) -> list[str]:
        return [frame.event for frame in self.frames if frame.topic == topic]

    def pushed(self, join_ref: object = None) -> list[Any]:
        """Return the payloads pushed so far, or those of one join; joins and heartbeats left out."""
        pushes = [frame for frame in self.frames if is_push(frame)]
        return [frame.payload for frame in pushes if join_ref in {None, frame.join_ref}]


@contextlib.contextmanager
def fake_phoenix(on_frame: OnFrame = polite, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[FakePhoenix]:
    fake = FakePhoenix(on_frame)
    server = serve(fake.serve, "127.0.0.1", port, ssl=tls, max_size=None, compression=None, close_timeout=1)
    fake.port = server.socket.getsockname()[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        for peer in fake.peers:
            with contextlib.suppress(OSError):
                peer.drop()
        thread.join()


@contextlib.contextmanager
def raw_server(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """Yield the port of a TCP server that hands each connection to `handle`, in a thread, and then closes it."""
    listener = socket.create_server(("127.0.0.1", 0))
    stopped = threading.Event()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while not stopped.is_set():
                threading.Thread(target=_handle, args=(listener.accept()[0], handle), daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        stopped.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _handle(connection: socket.socket, handle: Callable[[socket.socket], None]) -> None:
    with connection, contextlib.suppress(OSError):
        handle(connection)


def read_request(connection: socket.socket) -> bytes:
    """Return the request up to its empty line."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(4096)
        if not chunk:
            break
        data += chunk
    return data
