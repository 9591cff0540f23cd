"""Calls to servers behind a broker: a request to a queue, and its reply.

with Client("stomp://admin:admin@localhost:61613") as client:
    print(client.call("predict", {"x": 1}, timeout_s=5).value)
"""

from __future__ import annotations

from infertool.errors import (
    CallTimeoutError,
    ConnectionLostError,
    RemoteFailureError,
    UnreadableReplyError,
    UnroutableError,
)
from infertool.rpc.client import Client
from infertool.rpc.pending import Counts
from infertool.rpc.reply import Call, NewCall, Reply

__all__ = [
    "Call",
    "CallTimeoutError",
    "Client",
    "ConnectionLostError",
    "Counts",
    "NewCall",
    "RemoteFailureError",
    "Reply",
    "UnreadableReplyError",
    "UnroutableError",
]
