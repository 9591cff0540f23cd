"""One call: a future of its reply. And the reply itself, or the failure that a server answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from infertool import codec
from infertool.brokers.port import OnSent
from infertool.codec import JSON, Codec, DecodeError
from infertool.errors import RemoteFailureError, UnreadableReplyError
from infertool.message import Message, Outgoing, Properties

# Header by which a server says what its reply is. One without it, as of other servers, is a result.
STATUS: Final = "status"
_NO_RESULT: Final = frozenset({"FAILED", "EXPIRED"})
# A larger reply is not unpacked.
_MOST_UNPACKED: Final = 256 * 1024 * 1024
_SHOWN: Final = 500


class Reply:
    """What a server answered. `elapsed_s` is the time since the call began."""

    def __init__(self, message: Message, queue: str, default: Codec, elapsed_s: float) -> None:
        self.message = message
        self.queue = queue
        self.elapsed_s = elapsed_s
        self._default = default

    def __repr__(self) -> str:
        return f"Reply({len(self.body)} bytes from {self.queue} after {self.elapsed_s:.3f} s)"

    @property
    def body(self) -> bytes:
        """The body as it came."""
        return self.message.body

    @cached_property
    def properties(self) -> Properties:
        """The broker's properties of the reply."""
        return self.message.properties

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """The server's headers: of infertool `status`, `event_id`, `processing_ms`, `model_version`."""
        return self.message.headers

    @property
    def status(self) -> str | None:
        """What the server says of the reply; None if it says nothing."""
        return self.message.native.get(STATUS)

    @cached_property
    def codec(self) -> Codec:
        """The codec that the reply's content type names, else that of the request."""
        return codec.for_content_type(self.properties.content_type or "") or self._default

    @cached_property
    def content(self) -> bytes:
        """The body, unpacked. Raises `UnreadableReplyError`."""
        encoding = self.properties.content_encoding
        if not encoding or not codec.is_packed(encoding):
            return self.body
        try:
            return codec.unpacked(self.body, encoding, _MOST_UNPACKED)
        except DecodeError as error:
            raise self._unreadable(error) from None

    @cached_property
    def value(self) -> Any:
        """The body, unpacked and decoded. Raises `UnreadableReplyError`."""
        return self.decoded(self.codec)

    def decoded(self, used: Codec) -> Any:
        """Return the body, unpacked and decoded by `used`. Raises `UnreadableReplyError`."""
        try:
            return codec.decode(used, self.content)
        except DecodeError as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: DecodeError) -> UnreadableReplyError:
        return self.unreadable(str(error))

    def unreadable(self, reason: str) -> UnreadableReplyError:
        """Return the error for a body that cannot be read because of `reason`."""
        return UnreadableReplyError(queue=self.queue, reason=reason, body=self.body)

    def failure(self) -> RemoteFailureError | None:
        """Return the failure that the server answered; None for a result."""
        if self.status not in _NO_RESULT:
            return None
        try:
            said = self.value
        except UnreadableReplyError:
            said = None
        if not isinstance(said, dict):
            text = self.body[:_SHOWN].decode("utf-8", "replace")
            return RemoteFailureError(queue=self.queue, error=text or "it does not say why")
        retryable = said.get("retryable")
        return RemoteFailureError(
            queue=self.queue,
            error=_text(said.get("error")) or "it does not say why",
            error_type=_text(said.get("error_type")),
            stage=_text(said.get("stage")),
            retryable=retryable if isinstance(retryable, bool) else None,
            event_id=_text(said.get("event_id")) or self.headers.get("event_id"),
        )


def _text(value: object) -> str | None:
    try:
        return None if value is None else str(value)
    except RecursionError:
        return "a value that is nested too deep"


@dataclass(frozen=True, slots=True)
class NewCall:
    """A call to start: see `Client.start`."""

    request: Outgoing
    timeout_s: float
    codec: Codec = JSON
    on_sent: OnSent | None = None


class Call(Future[Reply]):
    """A call under way: a future of the reply.

    It ends at its own deadline at the latest. `result()` raises `CallTimeoutError`, `UnroutableError`, `RefusedError`,
    `RemoteFailureError`, `ConnectionLostError`; `cancel()` gives it up, and a late reply is dropped. Made by `Client`.
    """

    def __init__(
        self,
        call_id: str,
        request: Outgoing,
        timeout_s: float,
        *,
        retry: bool,
        used: Codec,
        forget: Callable[[str], bool],
        expire: Callable[[Call], None],
        on_sent: Callable[[Exception | None], None] | None = None,
    ) -> None:
        super().__init__()
        self.id = call_id
        self.request = request
        self.timeout_s = timeout_s
        self.retry = retry
        self.began = time.monotonic()
        self.deadline = self.began + timeout_s
        self.on_sent = on_sent
        # What the server answered, also where that is a failure; and the failure.
        self.reply: Reply | None = None
        self.failure: RemoteFailureError | None = None
        self._codec = used
        self._forget = forget
        self._expire = expire

    @property
    def event_id(self) -> str:
        """The id by which servers recognise the request when it comes again."""
        return self.request.headers["event_id"]

    def result(self, timeout: float | None = None) -> Reply:
        """Return the reply, waiting for `timeout` seconds at most (`TimeoutError`), and never past the deadline."""
        return super().result(self._until_end(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call failed with, or None. Waits as `result`."""
        return super().exception(self._until_end(timeout))

    def _until_end(self, timeout: float | None) -> float | None:
        """Wait until the deadline if `timeout` lasts as long, and end the call then. Return the rest of `timeout`.

        A busy machine may wake the thread of all deadlines later than the one that waits here.
        """
        left_s = self.deadline - time.monotonic()
        if self.done() or (timeout is not None and timeout < left_s):
            return timeout
        try:
            super().exception(max(0.0, left_s))
        except TimeoutError:
            self._expire(self)
        except CancelledError:
            pass
        return None if timeout is None else max(0.0, timeout - max(0.0, left_s))

    def cancel(self) -> bool:
        """Give the call up. Return False if it has ended. The server is not told."""
        if not self._forget(self.id):
            return self.cancelled()
        super().cancel()
        # What `concurrent.futures.wait` looks for.
        self.set_running_or_notify_cancel()
        return True

    def answer(self, message: Message) -> bool:
        """End with a reply. Return False if it is a failure. For the client, which has forgotten the call before."""
        reply = Reply(message, self.request.destination, self._codec, time.monotonic() - self.began)
        self.reply = reply
        self.failure = reply.failure()
        if self.failure:
            self.set_exception(self.failure)
        else:
            self.set_result(reply)
        return self.failure is None
