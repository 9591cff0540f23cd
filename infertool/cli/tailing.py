"""Following topics: join, filter, print."""

from __future__ import annotations

import queue
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from infertool.cli import console, pretty
from infertool.errors import NothingMatchedError, UsageError
from infertool.filters import Filter
from infertool.link import LinkEvent, LinkState
from infertool.phoenix.channel import Channel
from infertool.phoenix.frames import Frame
from infertool.phoenix.socket import PhoenixSocket
from infertool.settings import Settings

# Events that wait to be printed; past this many the reader waits, and with it the server.
MOST_WAITING = 10_000
BATCH = 500
POLL_S = 0.1

_PARAMS_ADVICE = """write for example '{"room":"a"}'"""


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event and the wall-clock time it came, in seconds."""

    frame: Frame
    at: float


def parse_params(text: str) -> dict[str, Any]:
    """Return the join parameters given as JSON. Raises `UsageError`."""
    try:
        params = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UsageError(f"--join-params is not JSON: {error}", advice=_PARAMS_ADVICE) from error
    if not isinstance(params, dict):
        raise UsageError("--join-params must be a JSON object", advice=_PARAMS_ADVICE)
    return params


class Tail:
    """One run of `infertool tail`."""

    def __init__(
        self,
        settings: Settings,
        topics: Sequence[str],
        *,
        event: str | None,
        where: Filter | None,
        count: int | None,
        seconds: float | None,
        form: str | None,
        quiet: bool,
    ) -> None:
        self._settings = settings
        self._topics = list(dict.fromkeys(topics))
        self._event = event
        self._where = where
        self._count = count
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._form = FORMS[form or ("pretty" if sys.stdout.isatty() else "jsonl")]
        self._quiet = quiet
        self._arrivals: queue.Queue[Arrival] = queue.Queue(MOST_WAITING)
        self._printed = 0
        self._lost = False

    def run(self) -> None:
        """Print until the count or the time is reached. Raises what the server refuses; `NothingMatchedError`."""
        socket = PhoenixSocket(self._settings.phoenix, on_link=self._on_link)
        try:
            socket.connect()
            for topic in self._topics:
                self._join(socket, topic)
            self._note(f"following {', '.join(self._topics)} at {socket.address}")
            self._print_all()
        finally:
            socket.close(1.0)
        self._check_found()

    def _join(self, socket: PhoenixSocket, topic: str) -> Channel:
        channel = socket.channel(topic, self._settings.phoenix.join_params, on_message=self._on_message)
        channel.join(self._settings.phoenix.connect_timeout_s)
        return channel

    def _on_message(self, frame: Frame) -> None:
        if self._event is None or frame.event == self._event:
            self._arrivals.put(Arrival(frame, time.time()))

    def _on_link(self, event: LinkEvent) -> None:
        if event.state is LinkState.LOST:
            self._lost = True
            self._note(f"lost {event.address}: {event.reason}; connecting again")
        elif event.state is LinkState.CONNECTED and self._lost:
            self._lost = False
            self._note("connected again; what was broadcast meanwhile is missed")

    def _note(self, text: str) -> None:
        if not self._quiet:
            console.err(text)

    def _print_all(self) -> None:
        while not self._finished():
            lines = [self._form(each) for each in self._next() if self._matches(each.frame)]
            if self._count is not None:
                lines = lines[: self._count - self._printed]
            if lines:
                console.out("\n".join(lines))
                self._printed += len(lines)

    def _finished(self) -> bool:
        if self._count is not None and self._printed >= self._count:
            return True
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _next(self) -> list[Arrival]:
        batch: list[Arrival] = []
        try:
            batch.append(self._arrivals.get(timeout=POLL_S))
            while len(batch) < BATCH:
                batch.append(self._arrivals.get_nowait())
        except queue.Empty:
            pass
        return batch

    def _matches(self, frame: Frame) -> bool:
        if self._where is None:
            return True
        payload = frame.payload if isinstance(frame.payload, dict) else {}
        return self._where.matches(payload, topic=frame.topic, event=frame.event)

    def _check_found(self) -> None:
        if self._deadline is None:
            return
        if self._printed < (self._count or 1):
            wanted = "" if self._count is None else f" of {self._count}"
            raise NothingMatchedError(f"the time ran out after {self._printed}{wanted} matching events")


def _pretty(arrival: Arrival) -> str:
    frame = arrival.frame
    return pretty.line(frame.topic, frame.event, frame.payload, at=arrival.at)


def _jsonl(arrival: Arrival) -> str:
    frame = arrival.frame
    document = {"topic": frame.topic, "event": frame.event, "payload": _plain(frame.payload), "at": arrival.at}
    return orjson.dumps(document).decode()


def _raw(arrival: Arrival) -> str:
    return orjson.dumps(_plain(arrival.frame.payload)).decode()


def _plain(payload: Any) -> Any:
    """Return a binary payload as a JSON string, each byte a character of the same number."""
    return payload.decode("latin-1") if isinstance(payload, bytes) else payload


FORMS: dict[str, Callable[[Arrival], str]] = {"pretty": _pretty, "jsonl": _jsonl, "raw": _raw}
