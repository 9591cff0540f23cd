"""Messages whose frames cannot be read: left in their queue, so that they do not keep all others from us."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping
from typing import Final

from infertool.brokers.stomp.frames import ENCODING, ERRORS, Frame, FrameError, Limits, unescape
from infertool.brokers.stomp.parser import DIGITS, FrameParser, Head

_log = logging.getLogger(__name__)

# Once may be the line's fault.
_FAILURES: Final = 2


class Unreadable:
    """What could not be read of one queue, over connections. What failed `failures` times is left out."""

    def __init__(self, queue: str, failures: int = _FAILURES) -> None:
        self._queue = queue
        self._most = failures
        self._failures: Counter[str] = Counter()

    def note(self, message_id: str, reason: str, *, blocks: bool = False) -> bool:
        """Note that a connection ended because of `reason` at the message `message_id`, which is empty for none.

        Return whether that one is left out from now on, and was not before. With `blocks` the broker cannot leave it
        out, and that is told.
        """
        if not message_id:
            return False
        # Brokers that cannot select an id give the message another one each time.
        key = "" if blocks else message_id
        self._failures[key] += 1
        is_new = self._failures[key] == self._most
        if is_new:
            _log.warning(
                "message %s in %s cannot be read (%s); it is left in the queue, and %s: "
                "take it out with another client", message_id, self._queue, reason,
                "all behind it wait" if blocks else "all others are taken",
                extra={"fields": {"message_id": message_id, "queue": self._queue}},
            )  # fmt: skip
        return is_new

    def selecting(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return SUBSCRIBE's `headers` with a selector for what is not left out."""
        out = [message_id for message_id, count in self._failures.items() if count >= self._most]
        if not out:
            return dict(headers)
        terms = [f"JMSMessageID <> '{message_id.replace(chr(39), 2 * chr(39))}'" for message_id in out]
        wanted = headers.get("selector", "")
        return {**headers, "selector": " AND ".join(([f"({wanted})"] if wanted else []) + terms)}


_MESSAGE: Final = "MESSAGE"
_HEAD: Final = b"MESSAGE\n"
# Where the next frame begins, in what a length takes for a body.
_NEXT_FRAME: Final = re.compile(rb"\0\n+(?:MESSAGE|RECEIPT|ERROR)\n")
_ID_LINE: Final = re.compile(rb"\nmessage-id:([^\n]*)")


class DoubtfulParser(FrameParser):
    """Finds where a body really ends, and names the message that cannot be read.

    BytesMessages have a true length, and the bodies of all others hold no NUL: that follows from ActiveMQ's code. So a
    length that no NUL follows is wrong, and the body ends at its first NUL. `mark` is a word that no body can hold, and
    the broker's answers do: seen within a body, it proves that this ended before. `misfits` gets the ids of messages
    whose length was wrong.
    """

    def __init__(self, *, limits: Limits, mark: bytes) -> None:
        super().__init__(limits=limits)
        self.misfits: list[str] = []
        self._mark = mark
        self._last_id = ""
        # Whether the open frame's head has lines that are only pieces of one.
        self._has_pieces = False

    @property
    def awaits_length(self) -> bool:
        """Whether a body has begun of which the announced length has not come."""
        return self._head is not None and self._head[2] is not None

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes. Raises FrameError, with the suspect."""
        try:
            frames = super().feed(data)
        except FrameError as fault:
            fault.suspect = fault.suspect or self._suspect(data, fault.frames)
            raise
        if frames:
            self._last_id = frames[-1].headers.get("message-id", "")
        return frames

    def _suspect(self, data: bytes, frames: list[Frame]) -> str:
        """Return the id of the message that cannot be read; when it is none that cannot, of the last before that."""
        if self._head is not None:
            return self._head[1].get("message-id", "")
        data = bytes(self._pending) or data
        if data.startswith(_HEAD, self._begin):
            return self._id_in(data[self._begin :].partition(b"\0")[0])
        return frames[-1].headers.get("message-id", "") if frames else self._last_id

    def _id_in(self, data: bytes) -> str:
        found = _ID_LINE.search(data)
        return unescape(found[1].decode(ENCODING, ERRORS), self.version) if found else ""

    def _grow(self, data: bytes) -> bool:
        before = len(self._pending)
        if super()._grow(data):
            return True
        return self.awaits_length and (
            len(self._pending) > self._limits.body or self._is_marked(self._pending, before - len(self._mark))
        )

    def _to_head(self, block: bytes) -> Head:
        if not block.startswith(_HEAD):
            return super()._to_head(block)
        lines = block.split(b"\n")
        if len({line for line in lines if line.startswith(b"ack:")}) > 1:
            raise FrameError("two ack headers: a header name holds a line break")
        whole = [line for line in lines[1:] if b":" in line]
        self._has_pieces = len(whole) < len(lines) - 1
        return super()._to_head(b"\n".join([lines[0], *whole]))

    def _check_open_head(self, data: bytes, position: int) -> None:
        """Wait for the end of a head, which names the message, even if it has too many lines."""
        if len(data) - position > self._limits.header_line:
            raise FrameError(f"a head of more than {self._limits.header_line} bytes")

    def _content_length(self, command: str, headers: dict[str, str]) -> int | None:
        try:
            return super()._content_length(command, headers)
        except FrameError:
            if command != _MESSAGE:
                raise
        text = headers["content-length"].strip()
        if text.isascii() and text.isdigit() and len(text) <= DIGITS:
            # Larger than what we take; so it is, or it is wrong. What comes tells.
            return int(text)
        self._drop_length(headers)
        return None

    def _drop_length(self, headers: dict[str, str]) -> None:
        """Take out a property `content-length`, which has nothing to do with the body of this text message."""
        self.misfits.append(headers.get("message-id", ""))
        del headers["content-length"]

    def _body_end(self, data: bytes, position: int, length: int | None) -> int:
        if self._head is None or self._head[0] != _MESSAGE:
            return super()._body_end(data, position, length)
        headers = self._head[1]
        if length is not None and self._is_wrong(data, position, position + length):
            self._drop_length(headers)
            self._head, length = (_MESSAGE, headers, None), None
        end = super()._body_end(data, position, length)
        if end >= 0 and "message-id" not in headers:
            self._check_cut(data[position:end])
        return end

    def _check_cut(self, body: bytes) -> None:
        """Raise FrameError when the rest of the head stands at the beginning of the body."""
        if suspect := self._id_in(b"\n" + body):
            raise FrameError("its head is cut: a header name holds an empty line", suspect)
        if self._has_pieces:
            raise FrameError("a header line without a colon")

    def _is_wrong(self, data: bytes, position: int, end: int) -> bool:
        """Return True if the body that begins at `position` cannot end at `end`."""
        if (end < len(data) and data[end]) or (end >= len(data) and self._is_marked(data, position)):
            return True
        if min(end, len(data)) - position > self._limits.body:
            raise FrameError(f"a body of more than {self._limits.body} bytes")
        if end < len(data) and _NEXT_FRAME.search(data, position, end):
            raise FrameError("a body that holds other frames: its content-length is wrong")
        return False

    def _is_marked(self, data: bytes | bytearray, begin: int) -> bool:
        return data.find(self._mark, max(0, begin)) >= 0
