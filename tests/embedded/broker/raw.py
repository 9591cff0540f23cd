"""A STOMP client over a bare socket, written without the product's codec, that returns whole frames."""

from __future__ import annotations

import socket
from dataclasses import dataclass

PATIENCE_S = 120.0
ESCAPES = {"\\n": "\n", "\\c": ":", "\\r": "\r", "\\\\": "\\"}


@dataclass(frozen=True)
class Got:
    """A frame as received: headers in order, still escaped."""

    command: str
    pairs: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        """Headers, unescaped as in STOMP 1.1 and 1.2; the first of duplicates wins."""
        return {unescape(key): unescape(value) for key, value in reversed(self.pairs)}

    def __getitem__(self, name: str) -> str:
        return self.headers[name]


def unescape(text: str) -> str:
    result, at = [], 0
    while at < len(text):
        pair = text[at : at + 2]
        result.append(ESCAPES.get(pair, text[at]))
        at += 2 if pair in ESCAPES else 1
    return "".join(result)


def frame(command: str, body: bytes | str = b"", /, **headers: str | int) -> bytes:
    """Return a frame's bytes; `_` in a keyword becomes `-`, and nothing is escaped."""
    pairs = {key.replace("_", "-"): str(value) for key, value in headers.items()}
    return frame_of(command, pairs, body)


def frame_of(command: str, headers: dict[str, str], body: bytes | str = b"") -> bytes:
    """Return a frame's bytes with headers exactly as given."""
    head = "".join(f"{key}:{value}\n" for key, value in headers.items())
    return f"{command}\n{head}\n".encode() + (body.encode() if isinstance(body, str) else body) + b"\0"


VOLATILE = ("message-id", "timestamp", "ack", "session", "server")


def settled(got: Got) -> tuple[str, dict[str, str], bytes]:
    """Return the whole frame, with `*` for values that differ between runs."""
    headers = {key: "*" if key in VOLATILE else value for key, value in got.headers.items()}
    return got.command, headers, got.body


def subscribe(destination: str, ack: str = "client-individual", *, id: str = "s", **headers: str) -> bytes:  # noqa: A002
    prefetch = {"activemq.prefetchSize": headers.pop("prefetch")} if "prefetch" in headers else {}
    return frame_of("SUBSCRIBE", {"id": id, "destination": destination, "ack": ack, **prefetch, **headers})


def send(destination: str, body: str | bytes = "x", **headers: str | int) -> bytes:
    """Return a persistent SEND."""
    return frame("SEND", body, **{"destination": destination, "persistent": "true", **headers})


class Raw:
    """One connection. `heard` holds received frames in order; heartbeats between frames are counted."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.beats = 0
        self.syncs = 0

    def write(self, *frames: bytes) -> None:
        self.socket.sendall(b"".join(frames))

    def read(self, timeout_s: float = PATIENCE_S) -> Got:
        """Return the next frame; EOFError when the server closed, TimeoutError when nothing came."""
        while True:
            got = self._take()
            if got is not None:
                return got
            self.socket.settimeout(timeout_s)
            self._more()

    def _more(self) -> None:
        try:
            data = self.socket.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        if not data:
            raise EOFError("closed by the server")
        self.buffer += data

    def _take(self) -> Got | None:
        stripped = self.buffer.lstrip(b"\n")
        self.beats += len(self.buffer) - len(stripped)
        self.buffer = stripped
        head, separator, rest = self.buffer.partition(b"\n\n")
        if not separator:
            return None
        command, *lines = head.decode().split("\n")
        pairs = tuple((key, value) for key, _, value in (line.partition(":") for line in lines))
        length = dict(pairs).get("content-length")
        end = int(length) if length else rest.find(b"\0")
        if end < 0 or len(rest) <= end:
            return None
        assert rest[end : end + 1] == b"\0"
        self.buffer = rest[end + 1 :]
        return Got(command, pairs, rest[:end])

    def connect(self, version: str = "1.2", **headers: str) -> Got:
        headers = {"accept_version": version, "host": "localhost", "login": "admin", "passcode": "admin"} | headers
        self.write(frame("CONNECT", **headers))
        return self.read()

    def ask(self, data: bytes) -> Got:
        self.write(data)
        return self.read()

    def sync(self) -> list[Got]:
        """Make the server answer to everything written so far; return the frames before that answer."""
        self.syncs += 1
        name = f"sync-{self.syncs}"
        self.write(frame("BEGIN", transaction=name, receipt=name), frame("ABORT", transaction=name))
        before: list[Got] = []
        while (got := self.read()).headers.get("receipt-id") != name:
            before.append(got)
        return before

    def read_many(self, number: int) -> list[Got]:
        return [self.read() for _ in range(number)]

    def done(self, *frames: bytes) -> list[Got]:
        """Write frames and wait until the server did what they say; return what came meanwhile."""
        self.write(*frames)
        return self.sync()

    def quiet(self) -> bool:
        """Return whether nothing comes: not before the server answers, nor in a moment after it (ActiveMQ delivers
        from another thread).
        """
        if self.sync():
            return False
        try:
            self.read(0.3)
        except TimeoutError:
            return True
        return False

    def closed(self) -> bool:
        """Wait for the server to close; frames before that are dropped."""
        try:
            while True:
                self.read()
        except EOFError:
            return True

    def close(self) -> None:
        self.socket.close()
