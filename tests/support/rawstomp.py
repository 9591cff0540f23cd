"""A STOMP client of a few lines over a raw socket: a judge that shares no code with what it judges."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterable, Mapping

TIMEOUT_S = 120.0


class RawStomp:
    """One connection. Bodies are sent as text (no content-length) unless `as_bytes`."""

    def __init__(self, port: int, *, login: str = "admin", passcode: str = "admin") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._numbers = itertools.count(1)
        credentials = f"login:{login}\npasscode:{passcode}\n"
        self._socket.sendall(f"CONNECT\naccept-version:1.2\nhost:x\n{credentials}heart-beat:0,0\n\n\0".encode())
        command, headers, _ = self._frame(TIMEOUT_S)
        assert command == "CONNECTED", headers

    def close(self) -> None:
        self._socket.close()

    def send(self, queue: str, messages: Iterable[tuple[Mapping[str, str], bytes]], *, as_bytes: bool = False) -> None:
        """Send persistent messages and wait for the last one's receipt. Header text must be escaped already."""
        for headers, body in messages:
            lines = {"destination": queue, "persistent": "true", **headers}
            if as_bytes:
                lines["content-length"] = str(len(body))
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
        """Wait until the broker has taken everything written before."""
        self._receipt("SEND", {"destination": f"{queue}.receipts"}, b"")

    def wait_closed(self) -> None:
        """Read, and drop what comes, until the broker closes the connection."""
        while self._socket.recv(1 << 18):
            pass

    def drain(self, queue: str, *, quiet_s: float = 1.0, **more: str) -> list[tuple[dict[str, str], bytes]]:
        """Take everything out of a queue, until nothing came for `quiet_s`; `more` headers go into SUBSCRIBE."""
        subscription = str(next(self._numbers))
        asked = {"id": subscription, "destination": queue, "ack": "client-individual", **more}
        self._write("SUBSCRIBE", asked, b"")
        taken = []
        while True:
            try:
                command, headers, body = self._frame(quiet_s)
            except TimeoutError:
                break
            assert command == "MESSAGE", (command, headers, body[:500])
            self._write("ACK", {"id": headers["ack"]}, b"")
            taken.append((headers, body))
        self._receipt("UNSUBSCRIBE", {"id": subscription}, b"")
        return taken

    def _receipt(self, command: str, headers: Mapping[str, str], body: bytes) -> None:
        number = str(next(self._numbers))
        self._write(command, {**headers, "receipt": number}, body)
        answered, answer, text = self._frame(TIMEOUT_S)
        assert answered == "RECEIPT", (answered, answer, text[:500])
        assert answer["receipt-id"] == number

    def _write(self, command: str, headers: Mapping[str, str], body: bytes) -> None:
        lines = "".join(f"{key}:{value}\n" for key, value in headers.items())
        self._socket.sendall(f"{command}\n{lines}\n".encode() + body + b"\0")

    def _frame(self, timeout_s: float) -> tuple[str, dict[str, str], bytes]:
        self._socket.settimeout(timeout_s)
        self._buffer = self._buffer.lstrip(b"\n")
        while b"\n\n" not in self._buffer:
            self._read()
        head, _, rest = self._buffer.partition(b"\n\n")
        command, *lines = head.decode("utf-8", "surrogateescape").split("\n")
        headers: dict[str, str] = {}
        for line in lines:
            key, _, value = line.partition(":")
            headers.setdefault(key, _unescaped(value))
        length = int(headers["content-length"]) if "content-length" in headers else None
        while (len(rest) <= length) if length is not None else (b"\0" not in rest):
            rest += self._receive()
        end = length if length is not None else rest.index(b"\0")
        self._buffer = rest[end + 1 :]
        return command, headers, rest[:end]

    def _read(self) -> None:
        self._buffer = (self._buffer + self._receive()).lstrip(b"\n")

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
