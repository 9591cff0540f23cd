"""One life of one WebSocket: messages in batches out of each read, and a writer thread for what the socket leaves."""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from typing import cast

from websocket import ABNF, WebSocketException, continuous_frame, frame_buffer

from infertool.net.write_buffer import OnWritten, WriteBuffer
from infertool.phoenix import stream as wire
from infertool.phoenix.stream import BufferEmptyError, Stream

TEXT: int = ABNF.OPCODE_TEXT
BINARY: int = ABNF.OPCODE_BINARY

_Message = tuple[int, bytes]
_CLOSE_NORMAL = struct.pack("!H", 1000)
# Many times what Phoenix takes by default (10 MB); beyond it, the length is garbage. Bytes.
_LARGEST_FRAME = 1 << 26
# How long the answer to the server's close frame may wait for the network. Seconds.
_GOODBYE_S = 1.0


class ConnectionEndedError(Exception):
    """The connection is over. The text says why, for people; `code` is the server's close code, if it sent one."""

    def __init__(self, reason: str, code: int | None) -> None:
        super().__init__(reason)
        self.code = code


class Connection:
    """A WebSocket after its upgrade. One thread reads; any thread writes or ends it."""

    def __init__(self, stream: Stream, address: str) -> None:
        self.address = address
        self._stream = stream
        self._write_buffer = WriteBuffer(stream.send_some)
        self._end_reason = ""
        # orjson checks text for UTF-8, faster than websocket-client does.
        self._parser = frame_buffer(stream.take, skip_utf8_validation=True)
        self._fragments = continuous_frame(fire_cont_frame=False, skip_utf8_validation=True)
        self._failure = ""
        self._saying_goodbye = False
        self._close_code: int | None = None
        self._writer = threading.Thread(target=self._write, name="phoenix-writer", daemon=True)
        self._writer.start()

    def read(self) -> list[_Message]:
        """Wait for bytes, and return the messages they complete, maybe none. Raises `ConnectionEndedError`."""
        messages: list[_Message] = []
        if not self._failure:
            self._failure = self._read_into(messages)
        if self._failure and not messages:
            # A server that closes while we write says why, and what we wrote fails: its reason counts.
            reason = self._failure if self._close_code else self._end_reason or self._failure
            raise ConnectionEndedError(reason, self._close_code)
        return messages

    def write(self, messages: Sequence[bytes], *, opcode: int = TEXT, on_written: OnWritten | None = None) -> None:
        """Write `messages`, or queue them for the writer, who calls `on_written` once the socket took them all.

        Never blocks.
        """
        self._write_buffer.put(b"".join(wire.frames(messages, opcode)), on_written)

    def say_goodbye(self) -> None:
        """Queue a close frame (1000). The server answers with its own, which ends `read`."""
        self.write([_CLOSE_NORMAL], opcode=ABNF.OPCODE_CLOSE)

    def end(self, reason: str) -> None:
        """End at once, whatever the peer does; `read` raises with `reason`."""
        self._end_reason = self._end_reason or reason
        self._stream.end()

    def close(self) -> None:
        """Free everything. For the reading thread, when it reads no more."""
        self._write_buffer.close()
        if self._saying_goodbye:
            self._writer.join(_GOODBYE_S)
        self._stream.end()
        self._writer.join()
        self._stream.close()

    def _read_into(self, messages: list[_Message]) -> str:
        """Read once. Return why there will be nothing more, or an empty string."""
        try:
            self._stream.fill()
            while True:
                if self._between_messages():
                    messages += [(TEXT, text) for text in self._stream.take_texts()]
                frame = self._parser.recv_frame()
                if frame.opcode == ABNF.OPCODE_CLOSE:
                    return self._closed_by(frame)
                self._take_frame(frame, messages)
        except BufferEmptyError:
            too_large = (self._parser.length or 0) > _LARGEST_FRAME
            return f"the server announced a frame of {self._parser.length} bytes" if too_large else ""
        except WebSocketException:
            return "the server sent what is no WebSocket frame"
        except OSError as error:
            return str(error)

    def _between_messages(self) -> bool:
        """Return True if no part of a frame and no fragment of a message has been taken."""
        return self._parser.header is None and not self._parser.recv_buffer and not self._fragments.recving_frames

    def _take_frame(self, frame: ABNF, messages: list[_Message]) -> None:
        if frame.opcode == ABNF.OPCODE_PING:
            self.write([_data(frame)], opcode=ABNF.OPCODE_PONG)
        elif frame.opcode != ABNF.OPCODE_PONG:
            self._fragments.validate(frame)
            self._fragments.add(frame)
            if frame.fin:
                opcode, whole = self._fragments.extract(frame)
                messages.append((opcode, whole.data))

    def _closed_by(self, frame: ABNF) -> str:
        self.write([_data(frame)[:2]], opcode=ABNF.OPCODE_CLOSE)
        self._saying_goodbye = True
        if frame.data:
            (self._close_code,) = struct.unpack("!H", _data(frame)[:2])
        return f"closed by the server with {self._close_code or 'no code'}"

    def _write(self) -> None:
        try:
            self._write_buffer.run(self._stream.send)
        except OSError as error:
            self.end(f"writing failed: {error}")
        finally:
            # Also when a callback raised: nobody would write any more.
            self.end("the writer stopped")


def _data(frame: ABNF) -> bytes:
    # Annotated as str | bytes for those who build frames; the parser always gives bytes.
    return cast("bytes", frame.data)
