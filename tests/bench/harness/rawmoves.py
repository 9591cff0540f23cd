"""The shortest loop that moves messages between queues in broker transactions: a raw socket that checks nothing."""

from __future__ import annotations

import re
import socket
import time
from collections import deque

WINDOW = 200
_ACK = re.compile(rb"\nack:([^\n]*)")
# As many bytes as a replay sends.
_KEPT = re.compile(rb"^(?:event_id|original_|replay_count|priority|dlq_failed_at)[^\n]*", re.MULTILINE)


class RawMover:
    """One connection. Bodies must be text without NUL."""

    def __init__(self, port: int, queue: str, target: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""
        self._messages: deque[bytes] = deque()
        self._receipts = 0
        self._target = target.encode()
        self._socket.sendall(b"CONNECT\naccept-version:1.2\nhost:x\nlogin:admin\npasscode:admin\nheart-beat:0,0\n\n\0")
        self._socket.sendall(
            f"SUBSCRIBE\nid:1\ndestination:{queue}\nack:client-individual\nactivemq.prefetchSize:{WINDOW}\n\n\0".encode()
        )

    def run(self, count: int, batch: int) -> float:
        """Move `count` messages, `batch` a transaction; return messages a second."""
        began = time.perf_counter()
        for number in range(count // batch):
            while len(self._messages) < batch:
                self._read()
            self._socket.sendall(self._transaction(b"t%d" % number, batch))
            while self._receipts <= number:
                self._read()
        seconds = time.perf_counter() - began
        self._socket.close()
        return count / seconds

    def _transaction(self, name: bytes, batch: int) -> bytes:
        frames = [b"BEGIN\ntransaction:%b\n\n\0" % name]
        for _ in range(batch):
            head, _, body = self._messages.popleft().partition(b"\n\n")
            frames.append(b"ACK\nid:%b\ntransaction:%b\n\n\0" % (_ACK.findall(head)[0], name))
            kept = b"\n".join(_KEPT.findall(head))
            frames.append(
                b"SEND\ndestination:%b\npersistent:true\n%b\ntransaction:%b\n\n%b\0" % (self._target, kept, name, body)
            )
        frames.append(b"COMMIT\ntransaction:%b\nreceipt:%b\n\n\0" % (name, name))
        return b"".join(frames)

    def _read(self) -> None:
        data = self._socket.recv(1 << 18)
        assert data, "the broker closed the connection"
        *frames, self._rest = (self._rest + data).split(b"\0")
        for frame in frames:
            if b"MESSAGE\n" in frame[:10]:
                self._messages.append(frame)
            elif b"RECEIPT\n" in frame[:10]:
                self._receipts += 1
