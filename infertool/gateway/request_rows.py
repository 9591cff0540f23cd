"""The rows of requests in the store: each is written when a request is accepted, and once more when it ends.

An idempotency key is a column of the row with a unique index, so that key and request are committed together or not at
all. The body goes when the request ends: from then on only the outcome is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from infertool.gateway.problem import Problem, Reason
from infertool.gateway.request import Accepted, InferRequest, Outcome, Progress, State
from infertool.gateway.store import Connection

TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS requests (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        client TEXT NOT NULL,
        class TEXT NOT NULL,
        model TEXT NOT NULL,
        queue TEXT NOT NULL,
        body BLOB,
        content_type TEXT NOT NULL,
        accepted_ms INTEGER NOT NULL,
        deadline_ms INTEGER NOT NULL,
        request_id TEXT NOT NULL,
        idempotency_key TEXT,
        fingerprint BLOB NOT NULL,
        webhook TEXT NOT NULL,
        traceparent TEXT NOT NULL,
        state TEXT,
        finished_ms INTEGER,
        result BLOB,
        result_type TEXT,
        processing_ms REAL,
        result_headers TEXT
    )""",
    """CREATE UNIQUE INDEX IF NOT EXISTS requests_by_key ON requests (client, idempotency_key)
        WHERE idempotency_key IS NOT NULL""",
    "CREATE INDEX IF NOT EXISTS requests_unfinished ON requests (number) WHERE finished_ms IS NULL",
    "CREATE INDEX IF NOT EXISTS requests_by_end ON requests (finished_ms) WHERE finished_ms IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS requests_with_webhook ON requests (id) WHERE webhook != ''",
    "CREATE TABLE IF NOT EXISTS gateway (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)

_INSERT: Final = """INSERT INTO requests (id, client, class, model, queue, body, content_type, accepted_ms, deadline_ms,
    request_id, idempotency_key, fingerprint, webhook, traceparent) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (client, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING"""
_FINISH: Final = """UPDATE requests SET state = ?, finished_ms = ?, result = ?, result_type = ?, processing_ms = ?,
    result_headers = ?, body = NULL WHERE id = ? AND finished_ms IS NULL"""
_REQUEST: Final = """id, client, class, model, queue, body, content_type, accepted_ms, deadline_ms, request_id,
    idempotency_key, fingerprint, webhook, traceparent"""
_OUTCOME: Final = "state, result, result_type, processing_ms, finished_ms, result_headers"
# Pages given back to the file system with each purge.
_PAGES: Final = 500


def insert(connection: Connection, request: InferRequest) -> Accepted | Problem:
    """Keep a request, unless its idempotency key is there: then return the first one's id, or the `Problem`."""
    key = request.idempotency_key or None
    added = connection.execute(
        _INSERT,
        (
            request.id, request.client, request.class_name, request.model, request.queue, request.body,
            request.content_type, request.accepted_ms, request.deadline_ms, request.request_id, key,
            request.fingerprint, request.webhook, request.traceparent,
        ),
    ).rowcount  # fmt: skip
    if added:
        return Accepted(request.id)
    return find_key(connection, request) or Problem(Reason.INTERNAL, "an idempotency key came and went")


def find_key(connection: Connection, request: InferRequest) -> Accepted | Problem | None:
    """Return what a request's idempotency key stands for; None if it is new."""
    row = connection.execute(
        "SELECT id, fingerprint FROM requests WHERE client = ? AND idempotency_key = ?",
        (request.client, request.idempotency_key),
    ).fetchone()
    if row is None:
        return None
    first, fingerprint = row
    if fingerprint != request.fingerprint:
        return Problem(Reason.IDEMPOTENCY_KEY_REUSED, "an earlier request with this key was another one")
    return Accepted(first, replayed=True)


def finish(connection: Connection, ended: Iterable[tuple[str, Outcome]]) -> None:
    """Keep outcomes. The first one of a request counts."""
    connection.executemany(
        _FINISH,
        (
            (
                outcome.state.value, outcome.finished_ms, outcome.body, outcome.content_type, outcome.processing_ms,
                msgspec.json.encode(outcome.headers).decode(), request_id,
            )
            for request_id, outcome in ended
        ),
    )  # fmt: skip


def find(connection: Connection, request_id: str) -> Progress | None:
    """Return a request as it is kept; one that has not ended is `QUEUED`."""
    row = connection.execute(f"SELECT {_REQUEST}, {_OUTCOME} FROM requests WHERE id = ?", (request_id,)).fetchone()  # noqa: S608
    if row is None:
        return None
    request = _request(row)
    state, result, result_type, processing_ms, finished_ms, headers = row[14:]
    if state is None:
        return Progress(request=request, state=State.QUEUED)
    outcome = Outcome(
        state=State(state),
        body=result or b"",
        content_type=result_type,
        processing_ms=processing_ms,
        finished_ms=finished_ms,
        headers=msgspec.json.decode(headers),
    )
    return Progress(request=request, state=outcome.state, outcome=outcome)


def unfinished(connection: Connection) -> Iterator[InferRequest]:
    """Yield the requests that have not ended, in the order of their acceptance."""
    rows = connection.execute(f"SELECT {_REQUEST} FROM requests WHERE finished_ms IS NULL ORDER BY number")  # noqa: S608
    return map(_request, rows)


def untold(connection: Connection) -> list[Progress]:
    """Return the requests with a webhook that have ended, and whose webhook was never written, with their outcomes.

    A webhook is kept as long as its request, at least.
    """
    found = connection.execute(
        """SELECT id FROM requests WHERE webhook != '' AND finished_ms IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM webhooks WHERE webhooks.id = requests.id)"""
    ).fetchall()
    return [progress for [each] in found if (progress := find(connection, each))]


def purge(connection: Connection, before_ms: int, at_most: int) -> int:
    """Forget at most so many requests that ended before a time; return how many there were."""
    forgotten = connection.execute(
        """DELETE FROM requests WHERE number IN
            (SELECT number FROM requests WHERE finished_ms < ? ORDER BY finished_ms LIMIT ?)""",
        (before_ms, at_most),
    ).rowcount
    if forgotten:
        # Each row that is read is one page.
        connection.execute(f"PRAGMA incremental_vacuum({_PAGES})").fetchall()
    return forgotten


def keep_name(connection: Connection, drawn: str) -> str:
    """Return the name that the gateway drew at its first start, which is `drawn` now if there was none."""
    connection.execute("INSERT INTO gateway VALUES ('name', ?) ON CONFLICT DO NOTHING", (drawn,))
    [name] = connection.execute("SELECT value FROM gateway WHERE name = 'name'").fetchone()
    return str(name)


def _request(row: tuple[Any, ...]) -> InferRequest:
    return InferRequest(
        id=row[0],
        client=row[1],
        class_name=row[2],
        model=row[3],
        queue=row[4],
        body=row[5] or b"",
        content_type=row[6],
        accepted_ms=row[7],
        deadline_ms=row[8],
        request_id=row[9],
        idempotency_key=row[10] or "",
        fingerprint=row[11],
        webhook=row[12],
        traceparent=row[13],
    )
