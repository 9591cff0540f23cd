"""Publishers without a server: standard output, a JSON document a line, and null."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import BinaryIO, Generic, TypeVar

from infertool.publishers.port import Confirmation, OnSettled, Publication
from infertool.telemetry.signals import NONE_UNCONFIRMED, Unconfirmed

T = TypeVar("T")


class LocalPublisher(Generic[T]):
    """Confirms each publication as soon as `write` has taken its payload."""

    batch = 1

    def __init__(self, name: str, write: Callable[[Sequence[bytes]], None]) -> None:
        self.name = name
        self._write = write
        self._on_settled: OnSettled[T] = _unreported

    def start(self) -> None:
        """Do nothing."""

    def report_to(self, on_settled: OnSettled[T]) -> None:
        """Report to `on_settled`, from the thread that publishes."""
        self._on_settled = on_settled

    def publish(self, publications: Sequence[Publication[T]], *, crashes: int = 0) -> None:  # noqa: ARG002  (the port)
        """Write, then confirm. A reader that has gone raises `BrokenPipeError`; then nothing is confirmed."""
        self._write([publication.payload for publication in publications])
        self._on_settled([Confirmation(publication, "write") for publication in publications], ())

    def widen(self, window: int) -> None:
        """Do nothing: `publish` never waits."""

    def pending(self) -> Unconfirmed:
        """Return nothing: a publication is confirmed when `publish` returns."""
        return NONE_UNCONFIRMED

    def stop(self) -> None:
        """Do nothing: `publish` never waits."""

    def drain(self, timeout_s: float) -> bool:  # noqa: ARG002  (the port)
        """Return True."""
        return True

    def close(self, timeout_s: float) -> None:
        """Do nothing."""


class Lines:
    """Writes each document as a line of JSON to `stream`. Thread-safe."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, documents: Sequence[bytes]) -> None:
        """Write and flush."""
        with self._lock:
            self._stream.write(b"".join(document + b"\n" for document in documents))
            self._stream.flush()


def discard(documents: Sequence[bytes]) -> None:
    """Drop each document."""


def _unreported(_confirmations: Sequence[object], _rejections: Sequence[object]) -> None:
    raise RuntimeError("publish before report_to")
