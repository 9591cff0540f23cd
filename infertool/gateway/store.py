"""One SQLite file for all that must survive a restart: a thread that writes in groups, and a connection that reads.

Many writes that wait at once are one transaction, so that a burst costs few commits. The file is in WAL mode with
`synchronous = NORMAL`: what is committed survives the death of the process, and the newest commits may be lost with the
machine's power. One process uses a file at a time, which a lock beside it ensures.
"""

from __future__ import annotations

import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from infertool.errors import InfertoolError
from infertool.gateway.problem import Problem, Reason

T = TypeVar("T")
Connection = sqlite3.Connection

FILE_NAME: Final = "gateway.sqlite"
LOCK_NAME: Final = "gateway.lock"
# Of the tables. A file of a later version is not touched.
VERSION: Final = 1
# "infe": by it a file of another program is recognised.
_APPLICATION: Final = 0x696E6665
# Time to wait for another program's lock on the file. Seconds.
_BUSY_S: Final = 2.0
_ENOUGH_IN_GROUP: Final = 1000
_WAL_BYTES: Final = 64 * 1024 * 1024


class StoreError(InfertoolError):
    """The store of requests cannot be opened."""

    def __init__(self, path: Path, reason: str, *, advice: str) -> None:
        super().__init__(f"the store of requests {path} cannot be used: {reason}", advice=advice)
        self.path = path
        self.reason = reason


class _Write:
    """A write that waits: its job, and who hears of its end."""

    __slots__ = ("job", "result", "then")

    def __init__(self, job: Callable[[Connection], Any], then: Callable[[Any], None]) -> None:
        self.job = job
        self.then = then
        self.result: Any = None


class Store:
    """Thread-safe. `tables` are statements that make tables where they are missing.

    Raises `StoreError` where the file is another process's, damaged, of a later version, or cannot be written.
    """

    def __init__(self, folder: Path, tables: Sequence[str]) -> None:
        self.path = folder / FILE_NAME
        self._lock_file = _lock(folder)
        try:
            self._writer = _open(self.path, tables)
            self._reader = _connect(self.path)
        except BaseException:
            os.close(self._lock_file)
            raise
        self._reading = threading.Lock()
        self._adding = threading.Lock()
        # None ends the thread.
        self._waiting: queue.SimpleQueue[list[_Write] | None] = queue.SimpleQueue()
        self._closed = False
        self._failure = ""
        self._thread = threading.Thread(target=self._write_on, name="infertool-gateway-store", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> str:
        """Why the newest write failed; empty if it did not."""
        return self._failure

    @property
    def size_bytes(self) -> int:
        """The size of the file and its log."""
        return sum(
            each.stat().st_size for each in (self.path, Path(f"{self.path}-wal")) if each.exists()
        )  # fmt: skip

    def write(self, job: Callable[[Connection], T], then: Callable[[T | Problem], None]) -> None:
        """Have one write done, as by `write_all`."""
        self.write_all([(job, then)])

    def write_all(self, writes: Sequence[tuple[Callable[[Connection], Any], Callable[[Any], None]]]) -> None:
        """Have jobs done in a transaction. Returns at once.

        Each `then` gets the result of its job after the commit, or the `Problem`, on the thread that writes. Writes are
        done in the order of their calls. A job may be done again after a rollback.
        """
        with self._adding:
            if not self._closed:
                self._waiting.put([_Write(job, then) for job, then in writes])
                return
        for _, then in writes:
            then(Problem(Reason.STORE_AWAY, "the store is closed"))

    def call(self, job: Callable[[Connection], T]) -> T:
        """Have `job` done in a transaction, and wait for it. Raises `Problem`."""
        done = threading.Event()
        results: list[T | Problem] = []

        def then(result: T | Problem) -> None:
            results.append(result)
            done.set()

        self.write(job, then)
        done.wait()
        if isinstance(results[0], Problem):
            raise results[0]
        return results[0]

    def read(self, job: Callable[[Connection], T]) -> T:
        """Return the result of `job`, which only reads what is committed. Raises `Problem`. May take a while."""
        with self._reading:
            try:
                return job(self._reader)
            except sqlite3.Error as error:
                raise _away(error) from error

    def close(self) -> None:
        """Write what waits, and close the file. Safe to call again."""
        with self._adding:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)
        self._thread.join()
        with self._reading:
            self._reader.close()
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file = -1

    def _write_on(self) -> None:
        while group := self._next_group():
            try:
                self._commit(group)
            except sqlite3.OperationalError as error:
                # Locked, full, unreadable: the others would meet the same.
                self._fail(group, error)
            except Exception:  # noqa: BLE001  (a fault of one job is not the others')
                self._commit_each(group)
            for write in group:
                write.then(write.result)
        self._writer.close()

    def _next_group(self) -> list[_Write]:
        """Return all that waits, as soon as there is something; nothing once the store is closed."""
        group: list[_Write] = []
        while not group or (len(group) < _ENOUGH_IN_GROUP and not self._waiting.empty()):
            added = self._waiting.get()
            if added is None:
                self._waiting.put(None)
                break
            group += added
        return group

    def _commit(self, group: Sequence[_Write]) -> None:
        connection = self._writer
        connection.execute("BEGIN IMMEDIATE")
        try:
            for write in group:
                write.result = write.job(connection)
            connection.execute("COMMIT")
        except BaseException:
            # SQLite may have rolled back by itself.
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        self._failure = ""

    def _commit_each(self, group: Sequence[_Write]) -> None:
        for write in group:
            try:
                self._commit([write])
            except sqlite3.Error as error:
                self._fail([write], error)
            except Exception as error:  # noqa: BLE001  (whoever asked gets to know)
                write.result = Problem(Reason.INTERNAL, f"{type(error).__name__}: {error}")

    def _fail(self, group: Sequence[_Write], error: sqlite3.Error) -> None:
        problem = _away(error)
        self._failure = problem.detail
        for write in group:
            write.result = problem


def _away(error: sqlite3.Error) -> Problem:
    return Problem(Reason.STORE_AWAY, str(error) or type(error).__name__, retry_after_s=1)


def _lock(folder: Path) -> int:
    """Lock the folder for this process; return the file that holds the lock, which ends with the process."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(folder, reason, advice="set gateway.state_dir to a folder that can be written") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise StoreError(
            folder, "another gateway uses it", advice="give each gateway a gateway.state_dir of its own"
        ) from None
    return lock


def _open(path: Path, tables: Sequence[str]) -> Connection:
    """Open the file to write, and make what is missing in it."""
    try:
        connection = _connect(path)
        try:
            _prepare(connection, path, tables)
        except BaseException:
            connection.close()
            raise
    except sqlite3.OperationalError as error:
        raise StoreError(path, str(error), advice="is it on a local disk with room, and no other program's?") from error
    except sqlite3.DatabaseError as error:
        raise StoreError(path, str(error), advice="move it away: a new one is made, without its requests") from error
    return connection


def _connect(path: Path) -> Connection:
    # Its lock is ours: each connection is used by one thread at a time.
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _prepare(connection: Connection, path: Path, tables: Sequence[str]) -> None:
    [application], [version] = (
        connection.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
    )
    is_new = connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    if not is_new and application != _APPLICATION:
        raise StoreError(path, "it is another program's", advice="set gateway.state_dir to another folder")
    if version > VERSION:
        raise StoreError(
            path,
            f"a later infertool wrote it (version {version}, this one knows {VERSION})",
            advice="use that one, or move the file away",
        )
    if is_new:
        path.chmod(0o600)
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    [mode] = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreError(path, "its file system has no shared memory", advice="set gateway.state_dir to a local disk")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
    connection.execute("BEGIN IMMEDIATE")
    for statement in tables:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {_APPLICATION}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")
