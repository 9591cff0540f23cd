"""The public topics on which a server broadcasts what was pushed: joined only while echoes are wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from infertool.phoenix.frames import Frame
from infertool.phoenix.membership import Loss, Membership, Transport

# After these the server has had its say: waiting longer brings no echo.
_FINAL = {Loss.REFUSED, Loss.TIMEOUT}


class PublicTopic:
    """One public topic."""

    def __init__(
        self,
        transport: Transport,
        topic: str,
        on_frames: Callable[[Sequence[Frame]], None],
        on_settled: Callable[[], None],
    ) -> None:
        self._membership = Membership(transport, topic, transport.join_payload, self)
        self._on_settled = on_settled
        self.on_frames = on_frames
        self.settled = True

    def join(self) -> Future[Any]:
        """Join without waiting, if it is not joined."""
        self.settled = False
        future = self._membership.begin_join()
        future.add_done_callback(lambda _: self._settle())
        return future

    def leave(self) -> None:
        """Leave."""
        self._membership.leave()
        self.settled = True

    def on_joined(self, _response: Any) -> None:
        """Echoes come from now on."""
        self._settle()

    def on_lost(self, loss: Loss, _reason: str) -> None:
        """Let pushes wait for the rejoin, unless the server will not have us."""
        self.settled = False
        if loss in _FINAL:
            self._settle()

    def _settle(self) -> None:
        self.settled = True
        self._on_settled()
