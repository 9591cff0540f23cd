"""The golden transcripts of real Phoenix servers, frame by frame."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2] / "fixtures" / "phoenix-golden"
VERSIONS = sorted(folder.name for folder in ROOT.iterdir())


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a transcript. `direction` is send or recv, from the client's side, or note.

    `whole` is False for what is no complete frame; `echo` is True for a client's answer to a close frame.
    """

    conn: str | None
    direction: str
    kind: str
    data: Any
    whole: bool
    echo: bool


@cache
def transcript(version: str, name: str) -> tuple[Line, ...]:
    path = ROOT / version / f"{name}.jsonl"  # U+2028 is in there raw: no splitlines
    return tuple(_line(json.loads(text)) for text in path.read_text().split("\n") if text)


def _line(row: dict[str, Any]) -> Line:
    data = row["data"]
    if row["type"] == "binary":
        data = base64.b64decode(data)
    whole = not {"fin", "deflated", "bytes", "raw_frame"} & row.keys()
    return Line(row["conn"], row["dir"], row["type"], data, whole, row.get("echo", False))


def names(prefix: str = "") -> list[tuple[str, str]]:
    return [(version, path.stem) for version in VERSIONS for path in sorted((ROOT / version).glob(f"{prefix}*.jsonl"))]


def frames(direction: str, kind: str, vsn: str) -> Iterator[tuple[str, Line]]:
    """Yield every good frame on sockets of protocol version `vsn`, each with a name for messages."""
    for version, name in names():
        if "malformed" in name or "invalid_utf8" in name:
            continue
        sockets: dict[str | None, str] = {}
        for number, line in enumerate(transcript(version, name), 1):
            if line.kind == "http" and line.direction == "send":
                sockets[line.conn] = _vsn(line.data)
            elif (line.direction, line.kind, sockets.get(line.conn)) == (direction, kind, vsn) and _good(line, vsn):
                yield f"{version}/{name}:{number}", line


def _good(line: Line, vsn: str) -> bool:
    """Tell whether it is no frame cut in two, abbreviated by the recorder, or of the other serializer on purpose."""
    return line.whole and (line.kind == "binary" or line.data.startswith("[" if vsn == "2.0.0" else "{"))


def _vsn(request: dict[str, Any]) -> str:
    target = request.get("path") or request.get("raw", "")
    return "2.0.0" if "vsn=2.0.0" in target else "1.0.0"
