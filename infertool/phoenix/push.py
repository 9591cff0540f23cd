"""A push, its result, its entry while it is unconfirmed; and batches, which carry many results in one push."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct

from infertool.errors import InfertoolError
from infertool.phoenix.frames import Frame
from infertool.text import json_text

T = TypeVar("T")


class DeliveryClosedError(InfertoolError):
    """The delivery is closed. `unpushed` are the pushes that it did not accept, for the caller to hand back."""

    def __init__(self, unpushed: Sequence[Push[Any]]) -> None:
        super().__init__(f"the delivery is closed; {len(unpushed)} pushes were not taken")
        self.unpushed = tuple(unpushed)


class Push(Struct, Generic[T], frozen=True, gc=False):
    """A message to push. `payload` is an encoded JSON object; `context` belongs to the caller.

    `event_ids` are the ids in the payload, several for a batch; echoes of all of them confirm the push.
    `reduced` is a smaller payload that replaces `payload` if that crashes the channel; empty if there is none.
    """

    event: str
    event_ids: tuple[str, ...]
    payload: bytes
    context: T
    reduced: bytes = b""

    def __str__(self) -> str:
        """Return event and id, for log lines."""
        more = len(self.event_ids) - 1
        return f"{self.event} {self.event_ids[0]}{f' and {more} more' if more else ''}"

    def without_payload(self) -> Push[T]:
        """Return the same push with the reduced payload."""
        return Push(self.event, self.event_ids, self.reduced, self.context)


class ConfirmedBy(StrEnum):
    """The kinds of confirmation; docs/guarantees.md says what each proves."""

    REPLY = "reply"
    ECHO = "echo"
    BARRIER = "barrier"
    NONE = "none"


class PushResult(Struct, Generic[T], frozen=True, gc=False):
    """The end of a push: exactly one of `confirmed_by` and `rejection` (the server's reason) is set.

    `crashes` is set if the push was rejected because it ended the channel or the connection: the number of ends at
    which it was unconfirmed. To push it again, pass that number to `Delivery.push`.
    """

    push: Push[T]
    confirmed_by: ConfirmedBy | None = None
    rejection: str | None = None
    crashes: int = 0


class Case(Struct, eq=False, gc=False):
    """The evidence against a suspect.

    `crashes` counts the ends of the channel at which it was unconfirmed; `first` is True if it was the likeliest cause
    of one. `evidence` counts the ends that it caused alone while other pushes passed; `holds` counts the ends without a
    conclusion. After one of these it waits until `not_before`, in monotonic seconds.
    """

    crashes: int = 0
    first: bool = False
    evidence: int = 0
    holds: int = 0
    not_before: float = 0.0


class Entry(Struct, Generic[T], eq=False, gc=False):
    """An unconfirmed push. `number` is its position in the order of acceptance, `order` in the order of sending.

    `accepted_at` and `sent_at` (the first time under this join) are monotonic seconds; `repeats` counts the further
    sends under this join. `unseen` counts the ids without an echo. `case` is set for a suspect.
    """

    push: Push[T]
    number: int
    accepted_at: float = 0.0
    ref: str = ""
    order: int = 0
    sent_at: float = 0.0
    repeats: int = 0
    unseen: int = 0
    case: Case | None = None


BATCH_EVENT: Final = "new_results"
_HEAD, _TAIL = b'{"results":[', b"]}"
# Bytes that a batch adds to its documents; bytes that it adds to each of them, at most.
BATCH_BYTES: Final = len(_HEAD + _TAIL)
BATCH_COMMA_BYTES: Final = 1


def join_documents(documents: Sequence[bytes]) -> bytes:
    """Return the payload that holds `documents`, which are encoded JSON objects."""
    return b"%b%b%b" % (_HEAD, b",".join(documents), _TAIL)


def announces_batches(response: Any) -> bool:
    """Return True if the response to a join says that the channel takes batches: `{"accepts": ["new_results"]}`."""
    accepts = response.get("accepts") if isinstance(response, dict) else None
    return isinstance(accepts, list) and BATCH_EVENT in accepts


def is_batch(frame: Frame) -> bool:
    """Return True if a broadcast is a batch. `new_results` with any other payload is not."""
    payload = frame.payload
    return frame.event == BATCH_EVENT and isinstance(payload, dict) and isinstance(payload.get("results"), list)


def document_texts(frame: Frame) -> list[bytes]:
    """Return the documents of a batch as they were written; empty if only their values are known."""
    text = frame.payload_text()
    return json_text.raw_elements(json_text.raw_members(text)["results"]) if text else []


def documents(frame: Frame) -> list[Any]:
    """Return the documents in a broadcast: those of a batch, else the payload alone."""
    return list(frame.payload["results"]) if is_batch(frame) else [frame.payload]
