"""An address that answers nothing: whoever connects to it waits."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

# With no backlog the kernel takes one connection, and drops what asks for another.
_ENOUGH = 4


@contextlib.contextmanager
def deaf(address: str, port: int) -> Iterator[None]:
    """Let connections to `address` and `port` never be made, nor refused."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(_ENOUGH):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((address, port))
        yield
