"""An HTTP server for tests of sinks: records what it gets, and answers as told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# For conditions; a busy machine is slow. Seconds.
PATIENCE_S = 120


@dataclass
class Receiver:
    """`status` answers each request; a path /hang gets no answer until the end, /moved a redirect to /.

    /hints gets an interim response before it, /trickle a body that does not end.
    """

    server: ThreadingHTTPServer
    status: int = 200
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)
    ended: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}{path}"

    def wait_for(self, count: int) -> list[Any]:
        """Return the bodies once there are `count`."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.requests) >= count, PATIENCE_S), self.requests
            return [json.loads(body) for _, _, body in self.requests]


@contextmanager
def receiving() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            with receiver.changed:
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.requests.append((self.path, headers, body))
                receiver.changed.notify_all()
            if self.path == "/hang":
                receiver.ended.wait()
                return
            if self.path == "/trickle":
                self.send_response(receiver.status)
                self.end_headers()
                while not receiver.ended.wait(0.05):
                    self.wfile.write(b": beat\n\n")
                return
            if self.path == "/hints":
                self.wfile.write(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
            self.send_response(302 if self.path == "/moved" else receiver.status)
            self.send_header("location", receiver.url("/inside"))
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver = Receiver(server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
