"""The WebSocket side of one socket: the `websockets` library's protocol core, closing as Phoenix does."""

from __future__ import annotations

import logging

from websockets.datastructures import Headers
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from infertool.devserver.hub.handshake import SUBPROTOCOL, offered_subprotocols

# At DEBUG the library logs requests and frames, and with them tokens.
_quiet = logging.getLogger(f"{__name__}.library")
_quiet.setLevel(logging.WARNING)
_NORMAL = Close(CloseCode.NORMAL_CLOSURE, "").serialize()


class Wire(ServerProtocol):
    """Bytes in, frames out. No extensions: Phoenix's `compress` is off by default."""

    def __init__(self, max_frame_bytes: int) -> None:
        super().__init__(max_size=max_frame_bytes, logger=_quiet)

    def process_subprotocol(self, headers: Headers) -> Subprotocol | None:
        """Take what is offered as it is: a token in base64 may hold a slash, which the header may not."""
        return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered_subprotocols(headers) else None

    def fail(self, code: CloseCode | int, reason: str = "") -> None:  # noqa: ARG002 - Phoenix never gives one
        """Close with `code` and no reason."""
        super().fail(code)

    def recv_frame(self, frame: Frame) -> None:
        """Answer every closing handshake with 1000, whatever the client's code (v2_client_closes.jsonl)."""
        super().recv_frame(frame)
        if frame.opcode is Opcode.CLOSE and self.close_rcvd_then_sent:
            self.writes[-2] = Frame(Opcode.CLOSE, _NORMAL).serialize(mask=False)
