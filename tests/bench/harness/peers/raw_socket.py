"""A raw socket: cuts the stream at NUL, finds the ids with a regular expression, acks a read's worth in one write."""

from __future__ import annotations

import re
import socket

from tests.bench.harness.peers import PREFETCH, TIMEOUT_S, Clock, arguments

_ACK = re.compile(rb"\nack:([^\n]*)")
READ_BYTES = 1 << 16


def main() -> None:
    port, queue, count = arguments()
    clock = Clock(count)
    connection = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(b"CONNECT\naccept-version:1.2\nhost:x\nlogin:admin\npasscode:admin\nheart-beat:0,0\n\n\0")
    headers = "".join(f"{name}:{value}\n" for name, value in PREFETCH.items())
    connection.sendall(f"SUBSCRIBE\nid:1\ndestination:{queue}\nack:client-individual\n{headers}\n\0".encode())
    rest = b""
    over = False
    while not over:
        data = connection.recv(READ_BYTES)
        assert data, "the broker closed the connection"
        *frames, rest = (rest + data).split(b"\0")
        ids = [_ACK.findall(frame)[0] for frame in frames if b"MESSAGE\n" in frame[:10]]
        if ids:
            clock.begin()
            connection.sendall(b"".join([b"ACK\nid:%b\n\n\0" % ack for ack in ids]))
            over = clock.settled(len(ids))
    print(clock.rate)


if __name__ == "__main__":
    main()
