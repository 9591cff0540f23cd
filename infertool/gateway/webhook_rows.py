"""The table of webhooks in the gateway's SQLite file. Each function is one statement or two, for one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

TABLE: Final = """
CREATE TABLE IF NOT EXISTS webhooks (
    id TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    body BLOB,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    changed_ms INTEGER NOT NULL,
    next_ms INTEGER,
    status INTEGER,
    error TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID"""
_COLUMNS: Final = "id, url, state, attempts, created_ms, changed_ms, next_ms, status, error"


class Delivery(StrEnum):
    """The state of a webhook. Given up: the result is kept for polling, as that of any request."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A webhook of the request `id`: how often it was tried, and the last answer's `status` or the `error`.

    Times are milliseconds since the epoch; `next_ms` is None when it has ended.
    """

    id: str
    url: str
    state: Delivery = Delivery.WAITING
    attempts: int = 0
    created_ms: int = 0
    changed_ms: int = 0
    next_ms: int | None = None
    status: int | None = None
    error: str = ""


def add(database: sqlite3.Connection, webhooks: Sequence[tuple[Webhook, bytes]]) -> set[str]:
    """Add webhooks with their bodies. Return the ids of those that were not there; the others are left as they are."""
    insert = f"INSERT OR IGNORE INTO webhooks ({_COLUMNS}, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
    return {each.id for each, body in webhooks if database.execute(insert, (*_values(each), body)).rowcount}


def change(database: sqlite3.Connection, webhook: Webhook) -> None:
    """Write what became of a webhook. Its body is kept while it waits."""
    database.execute(
        "UPDATE webhooks SET state = ?, attempts = ?, changed_ms = ?, next_ms = ?, status = ?, error = ?,"
        " body = CASE WHEN ? THEN body END WHERE id = ?",
        (
            webhook.state, webhook.attempts, webhook.changed_ms, webhook.next_ms, webhook.status, webhook.error,
            webhook.state is Delivery.WAITING, webhook.id,
        ),
    )  # fmt: skip


def body(database: sqlite3.Connection, webhook_id: str) -> bytes | None:
    """Return the body of a webhook that waits."""
    row: tuple[bytes | None] | None = database.execute(
        "SELECT body FROM webhooks WHERE id = ?", (webhook_id,)
    ).fetchone()
    return row[0] if row else None


def found(database: sqlite3.Connection, state: Delivery | None = None, limit: int = -1) -> list[Webhook]:
    """Return the webhooks, the newest first."""
    rows = database.execute(
        f"SELECT {_COLUMNS} FROM webhooks WHERE ?1 IS NULL OR state = ?1 ORDER BY created_ms DESC, id DESC LIMIT ?2",  # noqa: S608
        (state, limit),
    )
    names = _COLUMNS.split(", ")
    return [_webhook(dict(zip(names, row, strict=True))) for row in rows]


def counts(database: sqlite3.Connection) -> dict[str, int]:
    """Return the number of webhooks by their state."""
    return dict(database.execute("SELECT state, count(*) FROM webhooks GROUP BY state").fetchall())


def forget(database: sqlite3.Connection, before_ms: int) -> None:
    """Remove what ended before a time."""
    database.execute("DELETE FROM webhooks WHERE state != ? AND changed_ms < ?", (Delivery.WAITING, before_ms))


def _values(webhook: Webhook) -> tuple[object, ...]:
    return tuple(getattr(webhook, name) for name in _COLUMNS.split(", "))


def _webhook(row: dict[str, object]) -> Webhook:
    return Webhook(**{**row, "state": Delivery(str(row["state"]))})  # type: ignore[arg-type]  # as written
