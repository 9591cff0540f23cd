"""An archive of messages: a self-contained JSON record a line, compressed where the file's name ends in .gz or .zst.

    {"infertool_message": 1, "id": "ID:...", "queue": "/queue/x.dlq", "archived_at": "2026-01-31T03:00:00.000+00:00",
     "type": "text", "headers": [["name", "value"], ...], "body": "..."}

A body that is no UTF-8 is `body_base64` instead. Header bytes that are no UTF-8 are lone surrogates, in the way of
Python's surrogateescape.

That is version 1, of messages whose headers and properties came in one list of texts, as over STOMP. Where a broker
tells them apart, the record is of version 2: `headers` holds no properties, and beside it are `properties`, `types`
(of headers that are no texts, by name: `brokers.header_types`), and `death` if the broker dead-lettered the message.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from infertool.brokers import header_types
from infertool.brokers import headers as textform
from infertool.brokers.header_types import HeaderTypeError
from infertool.deadletters.archive import packing
from infertool.errors import InfertoolError
from infertool.message import BodyKind, BrokerDeath, Message, Properties, TypedMessage

_TEXTS, _TYPED = 1, 2
VERSIONS: Final = (_TEXTS, _TYPED)
_MARK: Final = "infertool_message"
_BEGINS: Final = tuple(f'{{"{_MARK}":{version},'.encode() for version in VERSIONS)
_REPAIR: Final = "repair or remove that line"


class ArchiveError(InfertoolError):
    """A file is no archive, is damaged, or cannot be read or written. `record` counts from 1; 0 is the whole file."""

    def __init__(self, path: Path, what: str, *, record: int = 0, advice: str = "") -> None:
        super().__init__(f"{path}{f', record {record}' if record else ''}: {what}", advice=advice)
        self.path = path
        self.record = record


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages that were read together, and the offset in the file up to which these and all before are whole."""

    messages: list[Message]
    end: int


def encode(message: Message) -> bytes:
    """Return the record of `message`, a line."""
    is_text = isinstance(message, textform.TextFormMessage)
    record: dict[str, Any] = {
        _MARK: _TEXTS if is_text else _TYPED,
        "id": message.id,
        "queue": message.source,
        "archived_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "type": message.kind,
        "headers": list((textform.text(message) if is_text else message.headers).items()),
        **({} if is_text else _typed_parts(message)),
    }
    try:
        record["body"] = message.body.decode()
    except UnicodeDecodeError:
        record["body_base64"] = base64.b64encode(message.body).decode()
    # Not orjson: it refuses lone surrogates.
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def _typed_parts(message: Message) -> dict[str, Any]:
    known = msgspec.structs.asdict(message.properties)
    parts: dict[str, Any] = {"properties": {name: value for name, value in known.items() if value is not None}}
    if message.types:
        parts["types"] = dict(message.types)
    if message.death:
        parts["death"] = msgspec.structs.asdict(message.death)
    return parts


def is_cut_record(data: bytes) -> bool:
    """Say whether `data` begins like a record of ours, as far as it goes; a power cut may leave NULs instead."""
    written = data.rstrip(b"\0")
    return any(written.startswith(begin) or begin.startswith(written) for begin in _BEGINS)


def read(path: Path) -> Iterator[Batch]:
    """Yield what the archive holds, in order; what was cut short at its end is left out. Raises ArchiveError.

    Only what is whole is removed from a queue, so what was cut short is still there.
    """
    number = 0
    try:
        with path.open("rb") as file:
            for line, end in packing.unpack(path, file):
                if not line.strip():
                    continue
                number += 1
                message = _decode(path, line, number)
                if message is None:
                    return
                yield Batch([message], end)
    except packing.DamagedError as fault:
        raise ArchiveError(path, f"damaged at byte {fault.offset}: {fault.reason}") from None
    except packing.TooLongError as fault:
        what = f"is longer than {packing.MOST_RECORD >> 20} MiB, and no broker has letters so large"
        raise ArchiveError(path, what, record=fault.number, advice=_REPAIR) from None
    except OSError as fault:
        raise ArchiveError(path, f"cannot be read: {fault.strerror}") from None


def _decode(path: Path, line: bytes, number: int) -> Message | None:
    """Return the message in a line; None for the last one of a plain file, cut short."""
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        if not line.endswith(b"\n"):
            return None
        raise ArchiveError(path, "is not JSON", record=number, advice=_REPAIR) from None
    return _message(path, document, number)


def _message(path: Path, document: Any, number: int) -> Message:
    if not isinstance(document, dict) or _MARK not in document:
        raise ArchiveError(path, "is not a message that infertool archived", record=number, advice=_REPAIR)
    if document[_MARK] not in VERSIONS:
        what = f"is of version {document[_MARK]!r}, and this infertool reads versions up to {VERSIONS[-1]}"
        raise ArchiveError(path, what, record=number, advice="use the infertool that wrote it, or a newer one")
    try:
        made = textform.archived(
            _text(document["id"]), _text(document["queue"]), _headers(document["headers"]), _body(document),
            BodyKind(document["type"]),
        )  # fmt: skip
        return made if document[_MARK] == _TEXTS else _typed(made, document)
    except KeyError as missing:
        raise ArchiveError(path, f"has no {missing}", record=number, advice=_REPAIR) from None
    except (TypeError, ValueError, HeaderTypeError, msgspec.ValidationError) as fault:
        raise ArchiveError(path, f"cannot be understood: {fault}", record=number, advice=_REPAIR) from None


def _typed(texts: Message, document: dict[str, Any]) -> Message:
    """Return the message of a record of version 2. Raises `HeaderTypeError` for a type that its header cannot have."""
    types = msgspec.convert(document.get("types", {}), dict[str, str])
    if stray := types.keys() - texts.native.keys():
        raise ValueError(f"no header has the name {min(stray)!r}, which has a type")
    header_types.from_texts(texts.native, types)
    return TypedMessage(
        texts.id, texts.source, texts.native, texts.body, texts.kind, redelivered=False, epoch=0, token="",
        known=msgspec.convert(document["properties"], Properties),
        header_types=types,
        broker_death=msgspec.convert(document.get("death"), BrokerDeath | None),
    )  # fmt: skip


def _headers(pairs: Any) -> dict[str, str]:
    headers: dict[str, str] = {}
    for key, value in pairs:
        # As in STOMP, the first of duplicates wins.
        headers.setdefault(_text(key), _text(value))
    return headers


def _body(document: dict[str, Any]) -> bytes:
    if "body_base64" in document:
        return base64.b64decode(_text(document["body_base64"]), validate=True)
    return _text(document["body"]).encode()


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} is no string")
    return value
