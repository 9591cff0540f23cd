"""A STOMP client of a few lines over a raw socket: a judge that shares no code with what it judges."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

TIMEOUT_S = 120.0

# Command, headers and body.
Frame = tuple[str, dict[str, str], bytes]


class RawStomp:
    """One connection. Bodies are sent as text (no content-length) unless `as_bytes`.

    `spell` returns a queue's name as the broker has it; `send` and `subscribe` are headers that it needs. With
    `confirm_each` every message has a receipt: where queues are independent, one says nothing of another.
    """

    def __init__(
        self,
        port: int,
        *,
        login: str = "admin",
        passcode: str = "admin",
        spell: Callable[[str], str] = str,
        send: Mapping[str, str] = MappingProxyType({}),
        subscribe: Mapping[str, str] = MappingProxyType({}),
        confirm_each: bool = False,
        counts_late: bool = False,
    ) -> None:
        self.confirm_each = confirm_each
        # Whether a queue that is said to be empty may hold messages that are on their way into it or out of it.
        self._counts_late = counts_late
        self._spell = spell
        self._on_send = send
        self._on_subscribe = subscribe
        self._numbers = itertools.count(1)
        self._port = port
        self._credentials = f"login:{login}\npasscode:{passcode}\n"
        self._connect()

    def _connect(self) -> None:
        self._buffer = bytearray()
        self._socket = socket.create_connection(("127.0.0.1", self._port), TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connect = f"CONNECT\naccept-version:1.2\nhost:/\n{self._credentials}heart-beat:0,0\n\n\0"
        self._socket.sendall(connect.encode())
        command, headers, _ = self._frame(TIMEOUT_S)
        assert command == "CONNECTED", headers

    def close(self) -> None:
        self._socket.close()

    def send(self, queue: str, messages: Iterable[tuple[Mapping[str, str], bytes]], *, as_bytes: bool = False) -> None:
        """Send persistent messages and wait for the last one's receipt. Header text must be escaped already."""
        for headers, body in messages:
            lines = {"destination": self._spell(queue), "persistent": "true", **self._on_send, **headers}
            if as_bytes:
                lines["content-length"] = str(len(body))
            if self.confirm_each:
                self._receipt("SEND", lines, body)
            else:
                self._write("SEND", lines, body)
        self.barrier(queue)

    def write(self, data: bytes) -> None:
        """Write frames made by hand, well or badly."""
        self._socket.sendall(data)

    def answer(self, timeout_s: float) -> str:
        """Return the command of the next frame; empty when none comes in time."""
        try:
            return self._frame(timeout_s)[0]
        except TimeoutError:
            return ""

    def barrier(self, queue: str) -> None:
        """Wait until the broker has stored everything written before: it stores what is persistent in turn."""
        lines = {"destination": self._spell(f"{queue}.receipts"), "persistent": "true", **self._on_send}
        self._receipt("SEND", lines, b"")

    def wait_closed(self) -> None:
        """Read, and drop what comes, until the broker closes the connection."""
        while self._socket.recv(1 << 18):
            pass

    def drain(
        self, queue: str, *, is_empty: Callable[[], bool] | None = None, **more: str
    ) -> list[tuple[dict[str, str], bytes]]:
        """Take everything out of a queue: until it `is_empty`, or where nobody can tell, until nothing comes.

        `more` headers go into SUBSCRIBE.
        """
        quiet_s = 0.05 if is_empty and not self._counts_late else 1.0
        taken: list[tuple[dict[str, str], bytes]] = []
        least = -1
        while least != len(taken):
            subscription = str(next(self._numbers))
            place = {"id": subscription, "destination": self._spell(queue), "ack": "client-individual"}
            self._write("SUBSCRIBE", {**place, **self._on_subscribe, **more}, b"")
            self._take_all(taken, is_empty, quiet_s, least)
            late = self._messages_until_receipt("UNSUBSCRIBE", {"id": subscription}, b"")
            least = len(taken) + len(late)
            if late:
                # The broker has them back, RabbitMQ only once the connection has ended.
                self.close()
                self._connect()
        return taken

    def _take_all(
        self, taken: list[tuple[dict[str, str], bytes]], is_empty: Callable[[], bool] | None, quiet_s: float, least: int
    ) -> None:
        """Take what comes, `least` messages in all at least."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                command, headers, body = self._frame(quiet_s)
            except TimeoutError:
                # What has come of a frame so far stays in the buffer.
                is_over = len(taken) >= least and (is_empty is None or is_empty())
                if is_over or time.monotonic() > deadline:
                    return
                continue
            deadline = time.monotonic() + TIMEOUT_S
            assert command == "MESSAGE", (command, headers, body[:500])
            self._write("ACK", {"id": headers["ack"]}, b"")
            taken.append((headers, body))

    def _receipt(self, command: str, headers: Mapping[str, str], body: bytes) -> None:
        messages = self._messages_until_receipt(command, headers, body)
        assert not messages, messages[0]

    def _messages_until_receipt(self, command: str, headers: Mapping[str, str], body: bytes) -> list[Frame]:
        number = str(next(self._numbers))
        self._write(command, {**headers, "receipt": number}, body)
        messages = []
        while (frame := self._frame(TIMEOUT_S))[0] == "MESSAGE":
            messages.append(frame)
        answered, answer, text = frame
        assert answered == "RECEIPT", (answered, answer, text[:500])
        assert answer["receipt-id"] == number
        return messages

    def _write(self, command: str, headers: Mapping[str, str], body: bytes) -> None:
        lines = "".join(f"{key}:{value}\n" for key, value in headers.items())
        self._socket.sendall(f"{command}\n{lines}\n".encode() + body + b"\0")

    def _frame(self, timeout_s: float) -> Frame:
        self._socket.settimeout(timeout_s)
        self._skip_line_ends()
        while b"\n\n" not in self._buffer:
            self._read()
        head, _, _ = self._buffer.partition(b"\n\n")
        command, *lines = head.decode("utf-8", "surrogateescape").split("\n")
        headers: dict[str, str] = {}
        for line in lines:
            key, _, value = line.partition(":")
            headers.setdefault(key, _unescaped(value))
        begin = len(head) + 2
        length = int(headers["content-length"]) if "content-length" in headers else None
        end = self._end(begin, length)
        body, self._buffer = bytes(self._buffer[begin:end]), self._buffer[end + 1 :]
        return command, headers, body

    def _end(self, begin: int, length: int | None) -> int:
        """Read until the body is there; return where it ends. A body of 50 MB is looked through once."""
        if length is not None:
            while len(self._buffer) <= begin + length:
                self._buffer += self._receive()
            return begin + length
        looked = begin
        while (end := self._buffer.find(b"\0", looked)) < 0:
            looked = len(self._buffer)
            self._buffer += self._receive()
        return end

    def _read(self) -> None:
        self._buffer += self._receive()
        self._skip_line_ends()

    def _skip_line_ends(self) -> None:
        """Drop heart-beats and what ends a frame."""
        del self._buffer[: len(self._buffer) - len(self._buffer.lstrip(b"\n"))]

    def _receive(self) -> bytes:
        data = self._socket.recv(1 << 18)
        assert data, "the broker closed the connection"
        return data


def _unescaped(value: str) -> str:
    pairs = {"\\c": ":", "\\n": "\n", "\\r": "\r", "\\\\": "\\"}
    out, rest = "", value
    while "\\" in rest:
        before, _, _ = rest.partition("\\")
        out += before + pairs.get(rest[len(before) : len(before) + 2], rest[len(before) : len(before) + 2])
        rest = rest[len(before) + 2 :]
    return out + rest
