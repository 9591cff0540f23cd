"""What a consumer and its worker processes say to each other: msgpack over a socket, a message a time.

A worker is told its `Order`, answers `Ready` or `Unfit`, and then gets requests: a list of groups of bodies, one call
of the model a group. It answers each group with a `Reply` at once, so that the one without a reply is the one in work.
A request without groups asks it to leave; its last word is `Closed`.
"""

from __future__ import annotations

import msgspec

from infertool.pipeline.event import Failure
from infertool.settings import ModelSettings


class Order(msgspec.Struct, frozen=True, array_like=True):
    """What a worker is to do. `max_tasks` and `memory_bytes` end it, see the settings; 0 never does."""

    model: ModelSettings
    in_batches: bool
    max_tasks: int
    memory_bytes: int


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The model is loaded and warmed up. `name` is what people call it."""

    name: str


class Unfit(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The model cannot be used; the fields of `ModelLoadError`, and the trace."""

    what: str
    advice: str
    trace: str


class Part(msgspec.Struct, frozen=True, array_like=True):
    """What became of one event: an encoded result, which may be from the model's cache, or a failure."""

    result: bytes
    processing_s: float
    failure: Failure | None
    cached: bool = False


class Reply(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What became of one group. With a reason in `leaving` the worker takes no more, and leaves."""

    parts: list[Part]
    busy_s: float
    leaving: str


class Closed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The model is closed; `error` says what it raised meanwhile."""

    error: str


Answer = Ready | Unfit | Reply | Closed
Request = list[list[bytes]]

encode = msgspec.msgpack.Encoder().encode
decode_order = msgspec.msgpack.Decoder(Order).decode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode
