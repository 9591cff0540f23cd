"""The store of requests: groups of writes, idempotency keys, and every way in which its file can be of no use."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from infertool.errors import SettingsError
from infertool.gateway import request_rows as rows
from infertool.gateway.ids import Ids, draw_name, made_ms, owner_of
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.request import Accepted, InferRequest, Outcome, State
from infertool.gateway.store import FILE_NAME, VERSION, Store, StoreError
from tests.gateway.engines import outcome_of
from tests.gateway.requests import a_request

Open = Callable[[], Store]


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Open]:
    stores: list[Store] = []

    def open_store() -> Store:
        stores.append(Store(tmp_path, rows.TABLES))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store: Open) -> Store:
    return open_store()


def insert(store: Store, request: InferRequest) -> Accepted:
    accepted = store.call(lambda connection: rows.insert(connection, request))
    assert isinstance(accepted, Accepted)
    return accepted


def unfinished(store: Store) -> list[InferRequest]:
    return store.read(lambda connection: list(rows.unfinished(connection)))


def test_requests_and_outcomes_survive(open_store: Open) -> None:
    store = open_store()
    asked = a_request(
        idempotency_key="k",
        fingerprint=b"\0f",
        webhook="https://a/b",
        traceparent="00-1",
        request_id="r",
        body=b"\0\xff",
    )
    plain, third = a_request(), a_request()
    for request in (asked, plain, third):
        assert insert(store, request) == Accepted(request.id)
    outcome = Outcome(
        state=State.FAILED,
        body=b"{}",
        content_type="a/b",
        processing_ms=1.5,
        finished_ms=7,
        headers={"model_version": "ü"},
    )
    again = Outcome(state=State.SUCCEEDED, finished_ms=8)
    store.call(lambda connection: rows.finish(connection, [(plain.id, outcome), (plain.id, again), ("unknown", again)]))
    store.close()

    store = open_store()
    assert unfinished(store) == [asked, third]
    kept = store.read(partial(rows.find, request_id=plain.id))
    assert kept
    assert (kept.state, kept.outcome, kept.request.id, kept.request.body) == (State.FAILED, outcome, plain.id, b"")
    waiting = store.read(partial(rows.find, request_id=asked.id))
    assert waiting
    assert (waiting.state, waiting.outcome, waiting.request) == (State.QUEUED, None, asked)
    assert store.read(partial(rows.find, request_id="none")) is None
    assert store.size_bytes > 0


def test_one_key_from_fifty_threads_is_one_request(store: Store) -> None:
    requests = [a_request(idempotency_key="k", fingerprint=b"f") for _ in range(50)]
    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(partial(insert, store), requests))
    assert sorted(answer.replayed for answer in answers) == [False, *[True] * 49]
    [kept] = unfinished(store)
    assert {answer.id for answer in answers} == {kept.id}
    # Of another body, and of another client.
    with pytest.raises(Problem) as caught:
        insert(store, a_request(idempotency_key="k", fingerprint=b"g"))
    assert caught.value.reason is Reason.IDEMPOTENCY_KEY_REUSED
    elsewhere = a_request(idempotency_key="k", fingerprint=b"g", client="d")
    assert insert(store, elsewhere) == Accepted(elsewhere.id)
    # And after its end.
    store.call(lambda connection: rows.finish(connection, [(kept.id, Outcome(state=State.SUCCEEDED, finished_ms=1))]))
    assert insert(store, requests[7]) == Accepted(kept.id, replayed=True)


def test_writes_that_wait_are_one_transaction(store: Store) -> None:
    """And one that fails takes none of the others with it."""
    begun, go = threading.Event(), threading.Event()
    commits: list[str] = []
    store._writer.set_trace_callback(lambda statement: commits.append(statement) if statement == "COMMIT" else None)
    ended: list[object] = []
    done = threading.Event()

    def hold(_connection: sqlite3.Connection) -> None:
        begun.set()
        assert go.wait(60)

    store.write(hold, ended.append)
    assert begun.wait(60)
    requests = [a_request() for _ in range(200)]
    for request in requests:
        store.write(partial(rows.insert, request=request), ended.append)
    store.write(lambda _connection: done.set(), ended.append)
    go.set()
    assert done.wait(60)
    assert store.call(lambda _connection: 1) == 1
    assert len(commits) == 3
    assert ended == [None, *(Accepted(request.id) for request in requests), None]

    ended.clear()
    begun.clear()
    go.clear()
    store.write(hold, ended.append)
    assert begun.wait(60)
    store.write(partial(rows.insert, request=requests[0]), ended.append)
    late = a_request()
    store.write(partial(rows.insert, request=late), ended.append)
    store.write(lambda _connection: 1 / 0, ended.append)
    go.set()
    assert store.call(lambda _connection: 1) == 1
    _, double, added, fault = ended
    assert isinstance(double, Problem)
    assert isinstance(fault, Problem)
    assert (double.reason, added, fault.reason) == (Reason.STORE_AWAY, Accepted(late.id), Reason.INTERNAL)
    assert len(unfinished(store)) == 201


def test_purge_goes_in_steps_and_gives_the_disk_back(store: Store) -> None:
    requests = [a_request(body=os.urandom(20_000), idempotency_key=str(number)) for number in range(50)]
    for request in requests:
        insert(store, request)
    result = os.urandom(20_000)
    for number, request in enumerate(requests[:40]):
        outcome = Outcome(state=State.SUCCEEDED, body=result, finished_ms=number)
        store.call(partial(rows.finish, ended=[(request.id, outcome)]))
    pages = store.read(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
    assert [store.call(lambda connection: rows.purge(connection, 30, 20)) for _ in range(3)] == [20, 10, 0]
    assert store.read(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0]) < pages
    assert store.read(partial(rows.find, request_id=requests[29].id)) is None
    assert outcome_of(store.read(partial(rows.find, request_id=requests[30].id))).body == result
    assert len(unfinished(store)) == 10
    # Its key is free again.
    assert insert(store, a_request(idempotency_key="0")).replayed is False


@pytest.mark.parametrize("fault", ["locked", "full"])
def test_a_store_that_cannot_be_written_says_so_and_recovers(store: Store, fault: str) -> None:
    other = sqlite3.connect(store.path, isolation_level=None)
    if fault == "locked":
        other.execute("BEGIN IMMEDIATE")
    else:
        store.call(lambda connection: connection.execute("PRAGMA page_count").fetchone())
        store._writer.execute("PRAGMA max_page_count = 1")
    request = a_request(body=bytes(1_000_000))
    with pytest.raises(Problem) as caught:
        insert(store, request)
    assert (caught.value.reason, caught.value.retry_after_s) == (Reason.STORE_AWAY, 1)
    assert fault in store.failure
    assert unfinished(store) == []
    if fault == "locked":
        other.execute("ROLLBACK")
    else:
        store._writer.execute("PRAGMA max_page_count = 1000000")
    other.close()
    assert insert(store, request) == Accepted(request.id)
    assert store.failure == ""


def test_a_second_gateway_on_the_folder_is_told(open_store: Open, tmp_path: Path) -> None:
    first = open_store()
    with pytest.raises(StoreError, match=r"another gateway uses it; give each gateway a gateway\.state_dir of its own"):
        open_store()
    first.close()
    first.close()
    open_store()
    with pytest.raises(Problem, match="closed"):
        first.call(lambda _connection: 1)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="Not a directory"):
        Store(tmp_path / "file" / "folder", rows.TABLES)


def _damage(path: Path) -> None:
    path.write_bytes(b"x" * 5000)


def _of_another(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()


def _later(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_damage, "file is not a database; move it away"),
        (_of_another, "it is another program's; set gateway.state_dir"),
        (_later, rf"a later infertool wrote it \(version {VERSION + 1}, this one knows {VERSION}\); use that one"),
    ],
)
def test_a_file_that_is_not_ours_is_left_alone(
    open_store: Open, tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    if change is _later:
        open_store().close()
    change(tmp_path / FILE_NAME)
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(StoreError, match=said):
        open_store()
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_a_file_that_is_damaged_while_it_is_used(store: Store) -> None:
    """A page in the middle: what cannot be read is refused, and nothing hangs."""
    requests = [a_request(body=bytes(5000)) for _ in range(200)]
    for request in requests:
        insert(store, request)
    store.call(lambda _connection: None)
    store._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with store.path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 200 * 4096)
    store._writer.execute("PRAGMA shrink_memory")
    with pytest.raises(Problem) as caught:
        unfinished(store)
    assert caught.value.reason is Reason.STORE_AWAY


_KILLED = """
import sys
from pathlib import Path
from infertool.gateway import request_rows as rows
from infertool.gateway.store import Store
from tests.gateway.engines import outcome_of
from tests.gateway.requests import a_request

store = Store(Path(sys.argv[1]), rows.TABLES)
while True:
    request = a_request()
    store.write(lambda c, request=request: rows.insert(c, request), lambda got: print(got.id, flush=True))
"""


def test_what_is_committed_survives_kill_9(open_store: Open, tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", _KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    told = [child.stdout.readline().strip() for _ in range(300)]
    child.send_signal(signal.SIGKILL)
    told += [line.strip() for line in child.stdout if line.endswith("\n")]
    child.wait()
    child.stdout.close()
    assert set(told) <= {request.id for request in unfinished(open_store())}


def test_ids(open_store: Open) -> None:
    ids = Ids("eu-1.a")
    made = [ids.new() for _ in range(2000)]
    assert len(set(made)) == 2000
    assert [each[:9] for each in made] == sorted(each[:9] for each in made)
    request = a_request()
    assert abs(made_ms(request.id) - request.accepted_ms) < 60_000
    assert {owner_of(each) for each in made} == {"eu-1.a"}
    assert [owner_of(each) for each in ("", "x", "-a", made[0][:17], f"{made[0][:17]}-", f"u{made[0][1:]}")] == [
        None
    ] * 6
    for bad in ("", "A", "a/b", "-a", "a-", "ü", "a" * 33):
        with pytest.raises(SettingsError):
            Ids(bad)
    store = open_store()
    first = store.call(lambda connection: rows.keep_name(connection, draw_name()))
    assert Ids(first).name == store.call(lambda connection: rows.keep_name(connection, "other")) == first
