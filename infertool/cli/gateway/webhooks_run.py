"""The job of `infertool gateway webhooks`: read the table, and show it."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from infertool.cli.common import console
from infertool.cli.common.deadletters import iso
from infertool.errors import NothingMatchedError, UsageError
from infertool.gateway import webhook_rows
from infertool.gateway.store import FILE_NAME
from infertool.gateway.webhook_rows import Delivery, Webhook
from infertool.settings.load import gateway_dir
from infertool.settings.tree import GatewaySettings
from infertool.text.sanitize import aligned, clean

_TITLES: Final = ("id", "to", "state", "attempts", "accepted", "next", "last")
_BUSY_S: Final = 5.0
# SQLite's largest number.
_MOST: Final = 2**63 - 1


def show(settings: GatewaySettings, state: str | None, limit: int, *, as_json: bool) -> None:
    """Show the webhooks. Raises `UsageError` without a store, `NothingMatchedError` if there are none."""
    path = gateway_dir(os.environ, settings.state_dir) / FILE_NAME
    found, counts = _read(path, Delivery(state) if state else None, limit)
    if as_json:
        console.emit_json({"webhooks": [_document(each) for each in found], "counts": counts})
    elif found:
        rows = [_TITLES, *map(_row, found)]
        console.out(*aligned([[clean(cell) or "-" for cell in row] for row in rows]))
    sums = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count)
    if not found:
        raise NothingMatchedError(f"there are no such webhooks in {path}{f' ({sums})' if sums else ''}")
    if not as_json:
        console.err(sums)


def _read(path: Path, state: Delivery | None, limit: int) -> tuple[list[Webhook], dict[str, int]]:
    if not path.is_file():
        raise UsageError(f"there is no gateway's store {path}", advice="name its folder with --state-dir")
    try:
        uri = f"file:{quote(str(path.absolute()))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_S)) as database:
            counts = Counter(webhook_rows.counts(database))
            found = webhook_rows.found(database, state, min(limit, _MOST))
    except sqlite3.Error as fault:
        if "no such table" in str(fault):
            return [], {}
        raise UsageError(f"{path} cannot be read: {fault}") from None
    return found, {each.value: counts[each.value] for each in Delivery}


def _document(webhook: Webhook) -> dict[str, Any]:
    found = asdict(webhook) | {"url": _shown(webhook.url)}
    for name in ("created", "changed", "next"):
        ms = found.pop(f"{name}_ms")
        found[name] = iso(None if ms is None else ms / 1000)
    return found


def _row(webhook: Webhook) -> tuple[str, ...]:
    told = _document(webhook)
    last = webhook.error or (str(webhook.status) if webhook.status else "")
    state = webhook.state.replace("_", " ")
    return (webhook.id, told["url"], state, str(webhook.attempts), told["created"], told["next"] or "", last)


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return (
        f"{parts.scheme}://{parts.netloc}/…"
        if parts.path.strip("/") or parts.query
        else f"{parts.scheme}://{parts.netloc}/"
    )
