"""Every error a user can meet. Each carries fields; its text says what happened, to what, and what to do next."""

from __future__ import annotations

from typing import ClassVar


class InfertoolError(Exception):
    """Base of all errors that end a command. `exit_code` is what the process returns."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, advice: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.what}; {self.advice}" if self.advice else self.what

    def lines(self) -> list[str]:
        """Return what a person is told, as lines. Other line breaks are a server's, or in a name."""
        return [str(self)]


class UsageError(InfertoolError):
    """The command line or an expression on it cannot be understood."""

    exit_code = 2


class SettingsError(InfertoolError):
    """A settings file, profile or variable is wrong. `key` is dotted (`broker.url`), `origin` names its source."""

    exit_code = 2

    def __init__(self, what: str, *, key: str = "", origin: str = "", nearest: str = "", advice: str = "") -> None:
        super().__init__(what, advice=advice)
        self.key = key
        self.origin = origin
        self.nearest = nearest


class ServerError(InfertoolError):
    """A server could not be reached, or said no. `address` never holds a password or token."""

    exit_code = 3

    def __init__(self, what: str, *, address: str, advice: str = "") -> None:
        super().__init__(what, advice=advice)
        self.address = address


class UnreachableError(ServerError):
    """Nothing answers at the address, or what answers is something else."""


class RefusedError(ServerError):
    """The server answered and refused: wrong password, bad token, forbidden destination. `reason` is its own word."""

    def __init__(self, what: str, *, address: str, reason: str = "", advice: str = "") -> None:
        super().__init__(what, address=address, advice=advice)
        self.reason = reason


class OccupiedError(RefusedError):
    """Another exclusive subscription has the queue to itself."""


class UnroutableError(RefusedError):
    """The broker has no queue of that name. It did not keep the message."""


class BrowseRefusedError(RefusedError):
    """A queue cannot be shown without harm to its messages, or not at all. It can be consumed."""


class ListenError(ServerError):
    """A server of ours cannot listen on its address."""


class JoinRefusedError(RefusedError):
    """A Phoenix topic cannot be joined."""

    def __init__(self, *, topic: str, address: str, reason: str, advice: str = "") -> None:
        super().__init__(
            f"joining {topic} at {address} was refused: {reason}", address=address, reason=reason, advice=advice
        )
        self.topic = topic


class ConnectionLostError(ServerError):
    """The connection ended before the answer came. Whether the server acted on the request is unknown."""


class ReceiptTimeoutError(ConnectionLostError):
    """No receipt came in time, on a connection that goes on. Whether the server acted on the request is unknown."""


class CallTimeoutError(InfertoolError):
    """No reply came within the time of a call. The request may still be in its queue, or under way."""

    exit_code = 4

    def __init__(self, *, queue: str, timeout_s: float) -> None:
        super().__init__(
            f"no reply from {queue} within {timeout_s:g} s", advice="is a server consuming it, and quick enough?"
        )
        self.queue = queue
        self.timeout_s = timeout_s


class RemoteFailureError(InfertoolError):
    """The server answered that it failed. `error_type`, `stage` and `retryable` are its own words, None if not said."""

    def __init__(
        self,
        *,
        queue: str,
        error: str,
        error_type: str | None = None,
        stage: str | None = None,
        retryable: bool | None = None,
        event_id: str | None = None,
    ) -> None:
        kind = f"{error_type}: " if error_type else ""
        where = f" in the stage {stage}" if stage else ""
        super().__init__(f"the server of {queue} failed{where}: {kind}{error}")
        self.queue = queue
        self.error = error
        self.error_type = error_type
        self.stage = stage
        self.retryable = retryable
        self.event_id = event_id


class UnreadableReplyError(InfertoolError):
    """A reply came that cannot be decoded. `reason` says why, `body` is what came."""

    def __init__(self, *, queue: str, reason: str, body: bytes) -> None:
        super().__init__(f"the reply from {queue} cannot be read: {reason}")
        self.queue = queue
        self.reason = reason
        self.body = body


class ModelLoadError(InfertoolError):
    """The model cannot be imported, built or warmed up."""

    def __init__(self, what: str, *, spec: str, advice: str = "") -> None:
        super().__init__(what, advice=advice)
        self.spec = spec


class NothingMatchedError(InfertoolError):
    """The command ran well and found nothing, or its time ran out."""

    exit_code = 4


class OutputError(InfertoolError):
    """Standard output cannot be written. `reason` is the system's; `done` is what was done all the same."""

    def __init__(self, reason: str, *, done: str = "") -> None:
        super().__init__(f"standard output cannot be written: {reason}{f'; this was done: {done}' if done else ''}")
        self.reason = reason


class InferenceError(Exception):
    """Raise this in a model to say that one event failed.

    `retryable=True` (the default) tries the event again up to `consume.max_attempts`;
    `retryable=False` sends it to the dead-letter queue at once.
    """

    # Of a subclass with an `__init__` of its own that does not call this one.
    retryable = True

    def __init__(self, message: str = "", *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class ModelUnavailableError(InferenceError):
    """Raise this in a model to say that it cannot answer now, whatever the event is: hold the event, try it again then.

    The try is not counted, and an event is held as often as it takes. From `predict_batch` it holds the whole batch.
    """

    retry_after_s = 1.0

    def __init__(self, message: str = "", *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StaleMessagesError(InfertoolError):
    """The messages were delivered by a connection that no longer exists; the broker delivers them again."""


class MoveRefusedError(InfertoolError):
    """The broker refused a transactional move. Nothing was moved; `reason` is the broker's own word."""

    def __init__(self, what: str, *, reason: str, advice: str = "") -> None:
        super().__init__(what, advice=advice)
        self.reason = reason

    @property
    def remedy(self) -> str:
        """The reason, and what to do about it."""
        return f"{self.reason}; {self.advice}" if self.advice else self.reason
