"""Plays the server's side of a golden transcript, and checks that a client sends what the recorded one sent.

Refs may differ, but consistently; an answer is sent as soon as its request came, else in the recorded order.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator, Sequence
from urllib.parse import parse_qs, urlsplit

from websockets import Subprotocol
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK
from websockets.sync.server import ServerConnection, serve

from infertool.phoenix.frames import Frame, Ref, decode_text, encode_text
from tests.phoenix.golden import Line


class MismatchError(AssertionError):
    """The client did not send what the transcript says."""


class Replay:
    """The connections of a transcript, one after the other. `failures` gets what went wrong, None for each success."""

    def __init__(self, connections: Sequence[Sequence[Line]]) -> None:
        self._connections = iter(connections)
        self._refs: dict[Ref, Ref] = {None: None}
        self.outcomes: queue.Queue[BaseException | None] = queue.Queue()
        self.port = 0

    def serve(self, ws: ServerConnection) -> None:
        lines = next(self._connections, None)
        if lines is None:
            return
        try:
            self._check_request(ws, lines)
            self._play(ws, [line for line in lines if line.kind in {"text", "close"}])
        except (MismatchError, ConnectionClosed, TimeoutError) as error:
            self.outcomes.put(error)
        else:
            self.outcomes.put(None)

    def _check_request(self, ws: ServerConnection, lines: Sequence[Line]) -> None:
        recorded = next(line.data for line in lines if line.kind == "http" and line.direction == "send")
        assert ws.request
        if _parameters(ws.request.path) != _parameters(recorded["path"]):
            raise MismatchError(f"requested {ws.request.path}, not {recorded['path']}")
        if "Origin" in ws.request.headers:
            raise MismatchError("sent an Origin")
        offered = ", ".join(recorded.get("protocols") or ())
        if offered != ws.request.headers.get("Sec-WebSocket-Protocol", ""):
            raise MismatchError("other subprotocols")

    def _play(self, ws: ServerConnection, lines: list[Line]) -> None:
        while lines:
            line = lines.pop(0)
            if line.kind == "close":
                self._close(ws, line)
                return
            if line.direction == "recv":
                self._send(ws, decode_text(line.data))
            else:
                self._expect(decode_text(ws.recv(timeout=120)), decode_text(line.data))
                self._send_early(ws, lines)

    def _expect(self, sent: Frame, recorded: Frame) -> None:
        if (sent.topic, sent.event, sent.payload) != (recorded.topic, recorded.event, recorded.payload):
            raise MismatchError(f"sent {sent}, not {recorded}")
        for ours, theirs in ((sent.ref, recorded.ref), (sent.join_ref, recorded.join_ref)):
            if self._refs.setdefault(theirs, ours) != ours:
                raise MismatchError(f"sent {sent}, where {theirs} stands for {self._refs[theirs]}")

    def _send_early(self, ws: ServerConnection, lines: list[Line]) -> None:
        """Answer before the next request what the recorded client did not wait for, but ours does."""
        if not lines or lines[0].direction != "send":
            return
        for line in list(lines):
            frame = decode_text(line.data) if line.kind == "text" and line.direction == "recv" else None
            if frame and frame.event == "phx_reply" and frame.ref in self._refs:
                lines.remove(line)
                self._send(ws, frame)

    def _send(self, ws: ServerConnection, frame: Frame) -> None:
        join_ref, ref = self._refs[frame.join_ref], self._refs[frame.ref]
        # Ours need not wait for the answer to a leave before it closes.
        with contextlib.suppress(ConnectionClosedOK):
            ws.send(encode_text(join_ref, ref, frame.topic, frame.event, frame.payload).decode())

    def _close(self, ws: ServerConnection, line: Line) -> None:
        if line.direction == "recv" or line.echo:
            ws.close(line.data["code"])
            return
        with contextlib.suppress(ConnectionClosed):
            raise MismatchError(f"sent {ws.recv(timeout=120)!r} instead of a close frame")
        if ws.close_code != 1000:
            raise MismatchError(f"closed with {ws.close_code}")


def _parameters(path: str) -> dict[str, list[str]]:
    parameters = parse_qs(urlsplit(path).query)
    parameters.setdefault("vsn", ["2.0.0"])
    return parameters


@contextlib.contextmanager
def replay(connections: Sequence[Sequence[Line]]) -> Iterator[Replay]:
    """Serve `connections` on a loopback port."""
    played = Replay(connections)
    server = serve(
        played.serve,
        "127.0.0.1",
        0,
        compression=None,
        close_timeout=1,
        select_subprotocol=lambda _, offered: Subprotocol("phoenix") if "phoenix" in offered else None,
    )
    played.port = server.socket.getsockname()[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield played
    finally:
        server.shutdown()
        thread.join()
