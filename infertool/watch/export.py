"""Entries as JSON lines, the same as `infertool tail -o jsonl` prints."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import orjson

from infertool.watch.entry import Entry, Kind


def line(entry: Entry) -> bytes:
    """Return an entry as one line of JSON, without its end."""
    document = {"topic": entry.topic, "event": entry.event, "payload": orjson.Fragment(entry.body), "at": entry.at}
    return orjson.dumps(document)


def write(entries: Sequence[Entry], folder: Path, now: float) -> tuple[Path, int]:
    """Write `entries`, in this order, to a new file in `folder`; return it and their number. Raises `OSError`."""
    events = [entry for entry in entries if entry.kind is not Kind.GAP]
    stem = time.strftime("infertool-watch-%Y%m%d-%H%M%S", time.localtime(now))
    path = _free(folder, stem)
    with path.open("xb") as file:
        file.writelines(line(entry) + b"\n" for entry in events)
    return path, len(events)


def _free(folder: Path, stem: str) -> Path:
    path = folder / f"{stem}.jsonl"
    number = 2
    while path.exists():
        path = folder / f"{stem}-{number}.jsonl"
        number += 1
    return path
