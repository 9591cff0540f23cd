"""The public topics on which a server broadcasts what was pushed: joined only while echoes are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any

from infertool.errors import UnreachableError
from infertool.phoenix.frames import Frame
from infertool.phoenix.membership import Loss, Membership, Transport

# After these the server has answered: waiting longer brings no echo.
_FINAL = {Loss.REFUSED, Loss.TIMEOUT}
_OnFrames = Callable[[Sequence[Frame]], None]


class PublicTopics:
    """All of them, joined and left together. `on_settled` is called when the answer to a join has come."""

    def __init__(
        self, transport: Transport, topics: Iterable[str], on_frames: _OnFrames, on_settled: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._topics = [_PublicTopic(transport, topic, on_frames, on_settled) for topic in topics]
        self._listening = False

    @property
    def settled(self) -> bool:
        """Whether the server has answered each join, so that no echo is missed."""
        return all(topic.settled for topic in self._topics)

    def join(self, timeout_s: float) -> BaseException | None:
        """Join, and wait up to `timeout_s` for each answer; return the first error."""
        self._listening = True
        errors = [self._error_of(future, timeout_s) for future in [topic.join() for topic in self._topics]]
        return next(filter(None, errors), None)

    def expect(self) -> None:
        """Have pushes wait for the joins that `follow` will send."""
        for topic in self._topics:
            topic.settled = topic.settled and self._listening

    def follow(self, *, wanted: bool) -> None:
        """Join or leave, without waiting."""
        for topic in self._topics:
            if not wanted:
                topic.leave()
            elif not self._listening:
                topic.join()
        self._listening = wanted

    def _error_of(self, joining: Future[Any], timeout_s: float) -> BaseException | None:
        try:
            return joining.exception(timeout_s)
        except TimeoutError:
            address = self._transport.address
            what = f"no answer to joining the public topics at {address}"
        return UnreachableError(what, address=address, advice="phoenix.confirm echo needs them")


class _PublicTopic:
    def __init__(self, transport: Transport, topic: str, on_frames: _OnFrames, on_settled: Callable[[], None]) -> None:
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
