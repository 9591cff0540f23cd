"""A STOMP server that takes everything and keeps nothing, so that whoever sends is the limit; a process of its own."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
from typing import Self

CONNECTED = b"CONNECTED\nversion:1.2\nheart-beat:0,0\n\n\0"
RECEIPT = re.compile(rb"\nreceipt:([^\n]+)\n")
# More than a receipt's header line: it may come in two reads.
KEPT = 100


class Sink:
    """The process, from its start to `__exit__`. Looks like `tests.support.activemq.ActiveMQ` to a client."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.bench.harness.sink"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout
        self.stomp_port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.communicate(timeout=20)

    @property
    def url(self) -> str:
        return f"stomp://127.0.0.1:{self.stomp_port}"


def main() -> None:
    """Serve until standard input ends."""
    server = socket.create_server(("127.0.0.1", 0))
    print(server.getsockname()[1], flush=True)
    threading.Thread(target=accept, args=(server,), daemon=True).start()
    sys.stdin.read()


def accept(server: socket.socket) -> None:
    while True:
        connection, _ = server.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def serve(connection: socket.socket) -> None:
    connection.recv(65536)  # CONNECT
    connection.sendall(CONNECTED)
    rest = b""
    while data := connection.recv(1 << 20):
        rest += data
        end = max(0, len(rest) - KEPT)
        for match in RECEIPT.finditer(rest):
            connection.sendall(b"RECEIPT\nreceipt-id:%b\n\n\0" % match[1])
            end = max(end, match.end())
        rest = rest[end:]
    connection.close()


if __name__ == "__main__":
    main()
