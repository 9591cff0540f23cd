"""A WebSocket client that sends exactly the given bytes, also invalid ones."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

TEXT, BINARY, CLOSE, PING, PONG, CONT = 1, 2, 8, 9, 10, 0
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, section 1.3
_NO_MASK = b"\0\0\0\0"  # a masking key that leaves the data as it is


@dataclass(frozen=True)
class HttpAnswer:
    status: int
    headers: dict[str, str]
    body: bytes


def frame(opcode: int, data: bytes = b"", *, fin: bool = True, masked: bool = True, rsv1: bool = False) -> bytes:
    head = bytes([(0x80 if fin else 0) | (0x40 if rsv1 else 0) | opcode])
    mask_bit = 0x80 if masked else 0
    if len(data) < 126:
        head += bytes([mask_bit | len(data)])
    elif len(data) < 1 << 16:
        head += bytes([mask_bit | 126]) + struct.pack("!H", len(data))
    else:
        head += bytes([mask_bit | 127]) + struct.pack("!Q", len(data))
    return head + (_NO_MASK if masked else b"") + data


def upgrade_request(path: str, headers: dict[str, str], port: int) -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {KEY}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


class RawClient:
    """One TCP connection to a channel server on 127.0.0.1."""

    def __init__(self, port: int, timeout_s: float = 20) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self._reader = self._socket.makefile("rb")
        self._pending = b""

    def later(self, data: bytes) -> None:
        """Send with the next `flush`, in one write with what else waits."""
        self._pending += data

    def flush(self) -> None:
        pending, self._pending = self._pending, b""
        if pending:
            self._socket.sendall(pending)

    def send(self, opcode: int, data: bytes | str) -> None:
        self.later(frame(opcode, data.encode() if isinstance(data, str) else data))
        self.flush()

    def read_http(self) -> HttpAnswer:
        status = int(self._reader.readline().split()[1])
        headers = {}
        while line := self._reader.readline().strip().decode():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return HttpAnswer(status, headers, self._reader.read(int(headers.get("content-length", 0))))

    def read_frame(self) -> tuple[int, bytes]:
        """Return opcode and data; raise EOFError at the end of the connection."""
        head = self._read(2)
        assert head[0] & 0x70 == 0, "no extension was agreed on"
        size = head[1]
        if size == 126:
            (size,) = struct.unpack("!H", self._read(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._read(8))
        return head[0] & 0x0F, self._read(size)

    def open(self, path: str, headers: dict[str, str] | None = None, port: int = 0) -> RawClient:
        self.later(upgrade_request(path, headers or {}, port))
        self.flush()
        answer = self.read_http()
        assert answer.status == 101, answer
        return self

    def close(self) -> None:
        self._reader.close()
        self._socket.close()

    def _read(self, size: int) -> bytes:
        data = self._reader.read(size)
        if len(data) < size:
            raise EOFError("the connection ended")
        return data
