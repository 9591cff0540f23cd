"""Dead letters as text for people and as documents for programs. Nothing from a message reaches a terminal raw."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from infertool import cells, json_text
from infertool.cli.deadletters import iso, when
from infertool.deadletter import ids
from infertool.deadletter.letter import DeadLetter
from infertool.deadletter.summary import Group
from infertool.printable import clean, printable

_ERROR_WIDTH = 80
_EXCERPT_BYTES = 512


def listed(letters: Iterable[DeadLetter]) -> list[str]:
    """Return a table with a line for each letter."""
    head = ("died", "id", "event id", "request id", "origin", "stage", "attempts", "replays", "error")
    return aligned([head, *(_row(letter) for letter in letters)])


def grouped(groups: Iterable[Group], fields: Sequence[str]) -> list[str]:
    """Return a table with a line for each group."""
    head = ("count", *fields, "first", "last", "sample")
    rows = [
        (str(group.count), *group.values, when(group.first), when(group.last), group.sample.message.id)
        for group in groups
    ]
    return aligned([head, *rows])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines with columns of equal width."""
    return cells.aligned([[clean(cell) or "-" for cell in row] for row in rows])


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


def in_full(letter: DeadLetter) -> list[str]:
    """Return all of a letter as lines, body pretty-printed."""
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
    # Lines of their own, and not again among the headers.
    trace = ["", "traceback", *(f"  {line}" for line in letter.traceback.split("\n"))] if letter.traceback else []
    headers = [f"  {key}: {value}" for key, value in letter.message.headers.items() if key != "dlq_traceback"]
    return [*lines, *trace, "", "headers", *headers, "", "body", *_body_lines(letter.message.body)]


def _body_lines(body: bytes) -> list[str]:
    body = json_text.utf8(body)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        excerpt = [body[at : at + 16].hex(" ") for at in range(0, min(len(body), _EXCERPT_BYTES), 16)]
        return [*excerpt, *(["... (-o json has all of it)"] if len(body) > _EXCERPT_BYTES else [])]
    if json_text.is_json(body):
        text = json_text.pretty(body).decode()
    return text.split("\n")


def document(letter: DeadLetter) -> dict[str, Any]:
    """Return all of a letter for a program: its body as `payload` (JSON), else `body` (text) or `body_base64`."""
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
        "headers": {printable(key): printable(value) for key, value in message.headers.items()},
        **_body(letter),
    }


def _body(letter: DeadLetter) -> dict[str, Any]:
    body = json_text.utf8(letter.message.body)
    if json_text.is_json(body):
        # As it came, not decoded and encoded again.
        return {"payload": orjson.Fragment(json_text.one_line(body))}
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


def group_document(group: Group, fields: Sequence[str]) -> dict[str, Any]:
    """Return a group for a program."""
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
