"""A vsn 2.0.0 client for tests of the channel server."""

from __future__ import annotations

import json
from typing import Any

from tests.embedded.channel_server import raw
from tests.embedded.channel_server.raw import RawClient


class Peer(RawClient):
    def __init__(self, port: int, *, token: str = "", vsn: str = "2.0.0") -> None:
        super().__init__(port)
        self.open(f"/socket/websocket?vsn={vsn}" + (f"&token={token}" if token else ""), port=port)

    def tell(self, *parts: object) -> None:
        self.send(raw.TEXT, json.dumps(parts))

    def hear(self) -> Any:
        """Return a message: a list, or an object in vsn 1.0.0."""
        opcode, data = self.read_frame()
        assert opcode == raw.TEXT, (opcode, data)
        return json.loads(data)

    def join(self, topic: str, join_ref: str = "1") -> object:
        """Join, and return the response."""
        self.tell(join_ref, join_ref, topic, "phx_join", {})
        *head, reply = self.hear()
        assert (head, reply["status"]) == ([join_ref, join_ref, topic, "phx_reply"], "ok")
        return reply["response"]

    def hear_reply(self) -> tuple[str, object]:
        message = self.hear()
        assert message[3] == "phx_reply", message
        return message[4]["status"], message[4]["response"]

    def hear_close(self) -> int:
        """Return the code of the close frame, which has no reason; what comes before it is dropped."""
        while True:
            opcode, data = self.read_frame()
            if opcode == raw.CLOSE:
                assert len(data) == 2
                return int.from_bytes(data)
