"""What comes over a STOMP connection, on its reading thread: frames for the connection, messages for sinks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from infertool.brokers.stomp.frames import Frame, FrameError, Limits
from infertool.brokers.stomp.unreadable import DoubtfulParser
from infertool.net.reader import ReaderHost, StreamReader

_log = logging.getLogger(__name__)

# Takes the messages of one subscription, a batch at a time.
Sink = Callable[[list[Frame]], None]

# A broker delivers more than it accepts: its own headers, escapes, and JMS properties, which have no limits.
# A frame that this parser refused would come again with the next connection, and be left out by the one after.
_FROM_BROKER: Final = Limits(header_line=200 * 1024 * 1024, headers=1_000_000)


class FrameHost(ReaderHost, Protocol):
    """What a reader needs of its connection. All methods are called by the reader."""

    def on_frame(self, frame: Frame) -> None:
        """Handle a frame that is neither MESSAGE nor RECEIPT. Raises `FrameError`."""

    def on_receipts(self, receipts: Sequence[str]) -> None:
        """Take confirmations that came together."""

    def probe(self) -> None:
        """Ask the broker for an answer: the parser cannot tell where a body ends."""


class Reader(StreamReader):
    """Reads frames and hands them to sinks, in one thread at a time."""

    def __init__(self, host: FrameHost, address: str, *, name: str, mark: bytes, masked: Callable[[str], str]) -> None:
        super().__init__(host, name=name, feed=self._parse, explain=self._reason, rest=self._probe)
        self._frames = host
        self._address = address
        self._masked = masked
        self._parser = DoubtfulParser(limits=_FROM_BROKER, mark=mark)
        self._sinks: dict[str, Sink] = {}
        self._probed = False
        # The id of the message that could not be read, and ended the connection.
        self.suspect = ""

    def deliver(self, subscription: str, sink: Sink) -> None:
        """Hand the messages of `subscription` to `sink` from now on."""
        self._sinks[subscription] = sink

    def _reason(self, fault: Exception) -> str:
        if not isinstance(fault, FrameError):
            return f"the reader failed: {fault!r}"
        self.suspect = self.suspect or fault.suspect
        return self._not_stomp(fault)

    def _probe(self, data: bytes | None) -> None:
        """Ask for an answer while the stream rests within a body of announced length: a wrong length swallows it."""
        if not self._parser.awaits_length:
            self._probed = False
        elif not self._probed and (not data or not data.strip(b"\n")):
            self._probed = True
            self._frames.probe()

    def _parse(self, data: bytes) -> None:
        try:
            frames = self._parser.feed(data)
        except FrameError as fault:
            # Before the frames are delivered: a thread that reads on after a hand-off must find the end.
            self.suspect = fault.suspect
            self._host.end(self._not_stomp(fault))
            frames = fault.frames
        if self._parser.misfits:
            self._report_misfits(self._parser.misfits)
        self._dispatch(frames)

    def _not_stomp(self, fault: FrameError) -> str:
        return f"the broker sent something else than STOMP: {self._masked(fault.reason)}"

    def _report_misfits(self, ids: list[str]) -> None:
        for message_id in ids:
            _log.warning(
                "message %s from %s has a property content-length that does not fit its body; all of it was read",
                message_id, self._address,
            )  # fmt: skip
        ids.clear()

    def _dispatch(self, frames: Sequence[Frame]) -> None:
        """Hand messages to their sinks, a batch each, after everything else has gone to the connection.

        Receipts are one batch, too, unless another frame is between them.
        """
        batches: dict[Sink, list[Frame]] = {}
        receipts: list[str] = []
        for frame in frames:
            if frame.command == "MESSAGE":
                sink = self._sinks.get(frame.headers.get("subscription", ""))
                if sink is None:
                    what = "a message for a subscription that is not ours"
                    raise FrameError(what, frame.headers.get("message-id", ""))
                batches.setdefault(sink, []).append(frame)
            elif frame.command == "RECEIPT":
                receipts.append(frame.headers.get("receipt-id", ""))
            else:
                self._frames.on_receipts(receipts)
                receipts = []
                self._frames.on_frame(frame)
        if receipts:
            self._frames.on_receipts(receipts)
        for sink, batch in batches.items():
            with self.delivering():
                sink(batch)
