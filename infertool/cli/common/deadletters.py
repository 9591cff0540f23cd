"""Shared by the dead-letter commands: the broker connection, restoring staged letters, letters as text and JSON."""

from __future__ import annotations

import base64
import getpass
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson

from infertool import brokers
from infertool.brokers.headers import text
from infertool.brokers.partitioned import Log
from infertool.brokers.port import Broker, Browse, Browsing, Selector
from infertool.cli.common import console
from infertool.deadletters import bodies, ids
from infertool.deadletters.letters import DeadLetter
from infertool.deadletters.record import NOTABLE_S
from infertool.deadletters.replay import companions
from infertool.deadletters.replay.companions import locked
from infertool.deadletters.replay.take import Bus
from infertool.deadletters.selection import Group
from infertool.errors import BrowseRefusedError
from infertool.net.connection_state import ConnectionEvent, ConnectionState, OnConnection
from infertool.settings import Settings
from infertool.text import json_text, sanitize
from infertool.text.sanitize import clean, printable

_GOODBYE_S = 10.0
_MEASURE_S = 1.0
# Maximum backoff: a person waits, and a letter over which the broker closes the connection costs three of them.
_LONGEST_BACKOFF_S = 1.0
_ERROR_WIDTH = 80
_EXCERPT_BYTES = 512


def operator() -> str:
    """Return the user, machine and process that run this command, for locks and audits."""
    return f"{getpass.getuser()}@{socket.gethostname()} (process {os.getpid()})"


def bus(settings: Settings, on_connection: OnConnection) -> Bus:
    """Return the means to connect to the configured broker."""
    name = f"infertool-{socket.gethostname()}-{os.getpid()}"
    broker = replace(settings.broker, reconnect_max_s=min(settings.broker.reconnect_max_s, _LONGEST_BACKOFF_S))
    return Bus(
        lambda linked: brokers.open(broker, name=name, on_connection=linked),
        timeout_s=settings.broker.receipt_timeout_s,
        on_connection=on_connection,
    )


@contextmanager
def connected(settings: Settings) -> Iterator[Broker]:
    """Yield a connected broker; pending writes are flushed at the end. Raises `ServerError`."""
    broker = bus(settings, _ignore).open_broker(_ignore)
    try:
        broker.connect()
        yield broker
    finally:
        broker.close(_GOODBYE_S)


@contextmanager
def exclusive(broker: Broker, queue: str, *, shared: bool) -> Iterator[float]:
    """Lock `queue` against other runs while the block runs, unless it is `shared`. Raises `BusyError`.

    Yields the seconds by which the broker's clock is ahead of this machine's; 0 if unknown.
    """
    if not shared and not (broker.capabilities.exclusive or broker.capabilities.depth):
        console.err(f"warning: {broker.address} cannot keep other runs away from {queue}; see that none works on it")
        shared = True
    with nullcontext(0.0) if shared else locked(broker, queue, operator()) as skew_s:
        yield skew_s


def look(
    broker: Broker, queue: str, *, limit: int, timeout_s: float, selector: Selector | None = None
) -> tuple[Browse, bool]:
    """Browse for a preview; return also True if the queue is empty. What cannot be browsed is asked for its depth.

    Raises as `Broker.browse`.
    """
    if broker.capabilities.browse is not Browsing.NONE:
        try:
            browse = broker.browse(queue, limit=limit, timeout_s=timeout_s, selector=selector)
        except BrowseRefusedError as refused:
            console.err(f"no letters are shown beforehand: {refused.reason}")
        else:
            return browse, not browse.messages and not browse.depth
    measured = broker.measure(queue, timeout_s) if broker.capabilities.depth else None
    depth = measured.size if measured else None
    return Browse([], complete=depth == 0, depth=depth), depth == 0


def restore_staged(broker: Broker, bus: Bus, queue: str) -> None:
    """Put back the letters that a killed run left in staging. A queue that reports no depth does not exist."""
    if broker.capabilities.log:
        return
    depth = broker.measure(companions.staging(queue), _MEASURE_S)
    known = depth.size if depth else None
    if known == 0 or (known is None and broker.measure(queue, _MEASURE_S) is not None):
        return
    count = companions.restore(bus, queue, staged=known)
    if count:
        console.err(f"put back {count} letters that an interrupted run had left in {companions.staging(queue)}")


def kept_note(broker: Log, queue: str) -> str:
    """Return what to know after letters of a log were settled."""
    return (
        f"{queue} keeps its letters until its retention ends; the group {broker.group(queue)} remembers which are"
        " settled, and the next run goes on from there"
    )


def warn_of_skew(broker_s: float, letters_s: float) -> None:
    """Warn if the clock of the broker, or the newest letter, differs from this machine's clock."""
    apart = [
        f"the broker's is {abs(broker_s):.0f} s {'ahead' if broker_s > 0 else 'behind'}" * (abs(broker_s) > NOTABLE_S),
        f"the newest letter is dated {letters_s:.0f} s ahead of now" * (letters_s > NOTABLE_S),
    ]
    if differences := ", and ".join(filter(None, apart)):
        console.err(
            f"warning: clocks differ from this machine's: {differences}; --since and --until go by this machine's"
        )


def iso(at: float | None) -> str | None:
    """Return a time (seconds since the epoch) as ISO 8601 in UTC."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def when(at: float | None) -> str:
    """Return a time (seconds since the epoch) for a table, in UTC."""
    return "-" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}Z"


def report_loss(event: ConnectionEvent) -> None:
    """Print a lost connection."""
    if event.state is ConnectionState.LOST:
        console.err(f"lost {event.address}: {event.reason}; connecting again")


def _ignore(_event: ConnectionEvent) -> None:
    pass


def letter_table(letters: Iterable[DeadLetter]) -> list[str]:
    """Return a table with a line for each letter."""
    head = ("died", "id", "event id", "request id", "origin", "stage", "attempts", "replays", "error")
    return aligned([head, *(_row(letter) for letter in letters)])


def group_table(groups: Iterable[Group], fields: Sequence[str]) -> list[str]:
    """Return a table with a line for each group."""
    head = ("count", *fields, "first", "last", "sample")
    rows = [
        (str(group.count), *group.values, when(group.first), when(group.last), group.sample.message.id)
        for group in groups
    ]
    return aligned([head, *rows])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines with columns of equal width."""
    return sanitize.aligned([[clean(cell) or "-" for cell in row] for row in rows])


def _row(letter: DeadLetter) -> tuple[str, ...]:
    return (
        when(letter.failed_at),
        letter.message.id,
        ids.event_id(letter),
        ids.request_id(letter),
        letter.origin,
        letter.stage or letter.writer,
        str(letter.attempts),
        str(letter.replay_count),
        _error(letter)[:_ERROR_WIDTH],
    )


def _error(letter: DeadLetter) -> str:
    return ": ".join(filter(None, (letter.error_type, letter.error)))


def details(letter: DeadLetter) -> list[str]:
    """Return all of a letter as lines, with its body pretty-printed."""
    facts = {
        "id": letter.message.id,
        "original id": letter.original_id,
        "event id": ids.event_id(letter),
        "request id": ids.request_id(letter),
        "from": letter.origin,
        "written by": letter.writer,
        "stage": letter.stage,
        "error": _error(letter),
        "attempts": str(letter.attempts),
        "first failed": when(letter.first_failed_at),
        "died": when(letter.failed_at),
        "replays": str(letter.replay_count),
        "consumer": letter.consumer,
        "model": letter.model,
        "body": f"{letter.message.kind}, {len(letter.message.body)} bytes",
    }
    lines = [f"{name:>12}  {value}" for name, value in facts.items() if value]
    # The traceback has lines of its own and is left out of the headers.
    trace = ["", "traceback", *(f"  {line}" for line in letter.traceback.split("\n"))] if letter.traceback else []
    types = {name: f" ({tag})" for name, tag in letter.message.types.items()}
    shown = {key: value for key, value in text(letter.message).items() if key != "dlq_traceback"}
    headers = [f"  {key}: {value}{types.get(key, '')}" for key, value in shown.items()]
    return [*lines, *trace, "", "headers", *headers, "", "body", *_body_lines(bodies.as_json(letter.message))]


def _body_lines(body: bytes) -> list[str]:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        excerpt = [body[at : at + 16].hex(" ") for at in range(0, min(len(body), _EXCERPT_BYTES), 16)]
        return [*excerpt, *(["... (-o json has all of it)"] if len(body) > _EXCERPT_BYTES else [])]
    if json_text.is_json(body):
        text = json_text.pretty(body).decode()
    return text.split("\n")


def document(letter: DeadLetter) -> dict[str, Any]:
    """Return all of a letter as a document for JSON: its body as `payload` (JSON), `body` (text) or `body_base64`.

    A body that is packed, or MessagePack, is shown as the JSON that results show of it.

    `header_types` names the headers that are no texts: see `infertool.brokers.header_types`.
    """
    message = letter.message
    return {
        "id": printable(message.id),
        "original_id": printable(letter.original_id),
        "event_id": ids.event_id(letter),
        "request_id": ids.request_id(letter) or None,
        "queue": printable(message.source),
        "origin": printable(letter.origin),
        "writer": letter.writer,
        "stage": printable(letter.stage),
        "error_type": printable(letter.error_type),
        "error": printable(letter.error),
        "attempts": letter.attempts,
        "failed_at": iso(letter.failed_at),
        "first_failed_at": iso(letter.first_failed_at),
        "replay_count": letter.replay_count,
        "consumer": printable(letter.consumer),
        "model": printable(letter.model),
        "traceback": printable(letter.traceback),
        "type": message.kind,
        "size": len(message.body),
        "headers": {printable(key): printable(value) for key, value in text(message).items()},
        **({"header_types": {printable(name): tag for name, tag in message.types.items()}} if message.types else {}),
        **_body(letter),
    }


def _body(letter: DeadLetter) -> dict[str, Any]:
    body = bodies.as_json(letter.message)
    if json_text.is_json(body):
        # Not decoded and encoded again: numbers stay as they are written.
        return {"payload": orjson.Fragment(json_text.one_line(body))}
    body = json_text.utf8(letter.message.body)
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


def group_document(group: Group, fields: Sequence[str]) -> dict[str, Any]:
    """Return a group as a document for JSON."""
    return {
        **{field: printable(value) for field, value in zip(fields, group.values, strict=True)},
        "count": group.count,
        "first_failed_at": iso(group.first),
        "last_failed_at": iso(group.last),
        "sample": printable(group.sample.message.id),
    }


def dump(value: Any) -> str:
    """Return `value` as one line of JSON."""
    return orjson.dumps(value).decode()
