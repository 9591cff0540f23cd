"""Worker processes: what they do, how they die, and what becomes of the event that was in work."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from infertool.codec import MSGPACK
from infertool.consumer.attempt import Event, Outcome
from infertool.consumer.batching.port import FixedBatches
from infertool.consumer.processes.pool import MOST_STARTS, Processes
from infertool.consumer.processes.wire import WorkerConfig
from infertool.errors import ModelLoadError
from infertool.settings import ModelSettings
from tests.consumer.harness import LONG, Bench, failure_of, failures
from tests.support.hanging import hangs_at_start
from tests.support.messages import message
from tests.support.running import environment

MODEL = "fixtures/models/misbehaves.py:Misbehaves"
MEMORY = 300_000_000


@contextlib.contextmanager
def bench_of(
    spec: str = MODEL, *, workers: int = 1, batch_size: int = 1, max_tasks: int = 0, memory: int = 0, **options: Any
) -> Iterator[tuple[Bench, list[str]]]:
    """Yield an executor over worker processes, and the warnings."""
    warnings: list[str] = []
    config = WorkerConfig(ModelSettings(spec=spec), batch_size > 1, max_tasks, memory)
    with Processes(config, workers, warnings.append) as worker_pool:
        batches = FixedBatches(batch_size, LONG) if batch_size > 1 else None
        bench = Bench(worker_pool, concurrency=workers, batches=batches, **options)
        yield bench, warnings
        assert bench.has_stopped or bench.stop()
    assert not workers_of(os.getpid()), "a worker is left behind"


def workers_of(pid: int) -> list[psutil.Process]:
    """Return the worker processes of a process, which may have children of other kinds."""
    found = []
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "infertool.consumer.processes.child" in child.cmdline():
                found.append(child)
    return found


def pids(bench: Bench) -> list[int]:
    return [result(outcome)["pid"] for outcome in bench.outcomes if outcome.failure is None]


def result(outcome: Outcome) -> dict[str, Any]:
    """Return the result that a worker has encoded."""
    found: dict[str, Any] = orjson.loads(outcome.prediction.text)
    return found


def test_each_event_gets_one_outcome_from_every_worker() -> None:
    with bench_of("fixtures/models/echo.py:predict", workers=2) as (bench, warnings):
        bench.submit(1000)
        outcomes = bench.wait(1000)
        found = sorted(result(outcome)["n"] for outcome in outcomes)
    assert found == list(range(1000))
    assert not warnings


def test_a_system_that_starts_no_process_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no file descriptor left when the worker is to be replaced."""
    real = subprocess.Popen
    failures_left = [MOST_STARTS - 1]

    def start(*args: Any, **options: Any) -> Any:
        if failures_left[0]:
            failures_left[0] -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(*args, **options)

    with bench_of() as (bench, warnings):
        descriptors = psutil.Process().num_fds()
        monkeypatch.setattr(subprocess, "Popen", start)
        bench.submit(1, do="exit")
        bench.submit(5)
        outcomes = bench.wait(6)
        assert psutil.Process().num_fds() == descriptors, "a start that failed leaves none behind"
    assert len(failures(outcomes)) == 1
    told = [line for line in warnings if "the system starts no worker process: Too many open files" in line]
    assert len(told) == MOST_STARTS - 1


@pytest.mark.parametrize(
    ("deed", "ending"),
    [
        ("segfault", "was killed by SIGSEGV"),
        ("exit", "ended with exit code 3"),
        ("fork", "was killed by SIGABRT"),
        # As the kernel does when memory runs out.
        ("kill", "was killed by SIGKILL (by the kernel if memory ran out; see dmesg)"),
    ],
)
def test_a_death_costs_its_event_one_retry_and_its_neighbours_nothing(deed: str, ending: str) -> None:
    with bench_of() as (bench, warnings):
        bench.submit(5)
        [event] = bench.submit(1, do=deed)
        bench.submit(5)
        outcomes = bench.wait(11)
        [died] = [outcome for outcome in outcomes if outcome.failure]
        assert died.event is event
        failure = failure_of(died)
        assert (failure.stage, failure.error_type) == ("infer", "WorkerDied")
        assert ending in failure.error
        assert failure.retryable
        assert {outcome.event.attempts for outcome in outcomes} == {1}
        again = failure_of(bench.again(died))
        assert again.error_type == "WorkerDied"
        assert not again.retryable
        assert len(warnings) == 2
        assert all(ending in warning for warning in warnings)


def test_what_a_model_has_forked_ends_with_its_worker() -> None:
    with bench_of() as (bench, _):
        [worker] = workers_of(os.getpid())
        bench.submit(1, do="fork")
        bench.wait(1)
        forked = [process for process in psutil.process_iter() if is_in_session(process, worker.pid)]
        assert len(forked) <= 1
        assert not psutil.wait_procs(forked, LONG)[1]


def is_in_session(process: psutil.Process, session: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        return os.getsid(process.pid) == session
    return False


@pytest.mark.parametrize("deed", ["hang", "hang-in-c"])
def test_a_call_that_hangs_is_ended(deed: str) -> None:
    with bench_of(timeout_s=2.0) as (bench, warnings):
        bench.submit(2)
        [event] = bench.submit(1, do=deed)
        bench.submit(2)
        outcomes = bench.wait(5)
        assert failures(outcomes) == {event.event_id: "Timeout"}
        assert next(outcome.failure for outcome in outcomes if outcome.failure).retryable
        assert "consume.timeout_s" in warnings[0]


@pytest.mark.parametrize("position", [0, 2, 3])
@pytest.mark.parametrize("deed", ["segfault", "hang"])
def test_a_batch_whose_worker_dies_is_tried_one_by_one(position: int, deed: str) -> None:
    with bench_of(batch_size=4, timeout_s=2.0) as (bench, warnings):
        bench.submit_all([{"do": deed} if n == position else {} for n in range(4)])
        outcomes = bench.wait(4)
        expected = "WorkerDied" if deed == "segfault" else "Timeout"
        assert failures(outcomes) == {str(position): expected}
        assert {outcome.event.attempts for outcome in outcomes} == {1}
        [failed] = [outcome for outcome in outcomes if outcome.failure]
        assert failure_of(failed).retryable is (deed == "hang"), "a second death is the last"
        assert len(warnings) == 2


def test_a_worker_that_leaks_is_replaced() -> None:
    with bench_of(memory=MEMORY) as (bench, warnings):
        bench.submit(9, do="leak")
        assert not failures(bench.wait(9))
        used = [len(list(group)) for _, group in itertools.groupby(pids(bench))]
        assert max(used) <= 3, "a worker kept more than it may"
        assert all("consume.worker_memory_bytes" in warning for warning in warnings)


def test_a_worker_that_always_holds_too_much_finishes_a_batch_that_one_event_spoils() -> None:
    with bench_of("fixtures/models/batched.py:Batched", batch_size=4, memory=1) as (bench, warnings):
        bench.submit_all([{"request_id": f"r-{number}"} for number in range(4)])
        assert failures(bench.wait(4)) == {"3": "ValueError"}
        assert len(warnings) <= 4, "a worker was replaced before it had answered for an event"


def test_a_worker_is_replaced_after_so_many_events() -> None:
    with bench_of(max_tasks=3) as (bench, warnings):
        bench.submit(9)
        bench.wait(9)
        assert [len(list(group)) for _, group in itertools.groupby(pids(bench))] == [3, 3, 3]
        assert not warnings


def test_what_a_model_prints_goes_to_standard_error_and_it_has_no_input(capfd: pytest.CaptureFixture[str]) -> None:
    with bench_of() as (bench, _):
        bench.submit(1, do="read")
        assert result(bench.wait(1)[0]) == {"read": ""}
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines() == ["a word on standard output", "closed"]


def test_signals_for_a_whole_group_leave_workers_at_work() -> None:
    """As systemd sends SIGTERM to every process of a service: the consumer alone decides when to stop."""
    with bench_of() as (bench, warnings):
        bench.submit(1)
        bench.wait(1)
        [worker] = workers_of(os.getpid())
        for number in (signal.SIGINT, signal.SIGTERM):
            worker.send_signal(number)
        bench.submit(1)
        bench.wait(2)
        assert set(pids(bench)) == {worker.pid}
        assert not warnings


def test_a_worker_that_died_while_it_was_idle_costs_no_event() -> None:
    with bench_of() as (bench, warnings):
        [worker] = workers_of(os.getpid())
        worker.kill()
        gone_or_zombie(worker.pid)
        bench.submit(1)
        assert not failures(bench.wait(1))
        assert "was killed by SIGKILL (by the kernel if memory ran out" in warnings[0]
        assert "with nothing in work" in warnings[0]


def gone_or_zombie(pid: int) -> None:
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)
                continue
        return
    raise AssertionError(f"process {pid} is still there")


def test_a_stop_with_a_hung_call_hands_its_event_back() -> None:
    with bench_of() as (bench, _):
        bench.submit(1)
        bench.wait(1)
        bench.submit(1, do="hang-in-c")
        bench.wait_running()
        assert not bench.stop(within_s=0.3)
        assert len(bench.outcomes) == 1


PARENT = """
import sys, time
from infertool.codec import MSGPACK
from infertool.consumer.attempt import Event, Outcome
from infertool.consumer.processes.pool import Processes
from infertool.consumer.processes.wire import WorkerConfig
from infertool.settings import ModelSettings
from tests.consumer.harness import Bench
with Processes(WorkerConfig(ModelSettings(spec={model!r}), False, 0, 0), 2, print) as staff:
    bench = Bench(staff)
    bench.submit(2)
    bench.wait(2)
    bench.submit(1, do="hang-in-c")
    bench.wait_running()
    time.sleep(0.2)  # by now it is in C code; the test holds as well if it is not
    print("at work", flush=True)
    time.sleep(600)
"""


def test_workers_end_with_their_consumer_however_it_goes() -> None:
    """One is idle, the other hangs in C code with the interpreter lock held."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(model=MODEL)], stdout=subprocess.PIPE, env=environment()
    )
    assert parent.stdout
    assert parent.stdout.readline() == b"at work\n"
    workers = workers_of(parent.pid)
    assert len(workers) == 2
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(workers, LONG)
    assert not alive


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("fixtures/models/import_error.py:predict", "no_such_package_anywhere"),
        ("fixtures/models/warm_up_failure.py:Model", "checksum mismatch"),
        ("segfaults.py:predict", "was killed by SIGSEGV"),
    ],
)
def test_a_model_that_cannot_be_used_stops_the_start(
    spec: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if spec.startswith("segfaults"):
        (tmp_path / "segfaults.py").write_text("import ctypes\nctypes.string_at(0)\n")
        monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelLoadError, match=reason), bench_of(spec, workers=2):
        pass
    assert not workers_of(os.getpid())


def test_a_reason_that_is_no_utf8_is_told(tmp_path: Path) -> None:
    """As that of a file whose name is not."""
    model = tmp_path / "odd.py"
    model.write_text("""
class Loads:
    def warm_up(self):
        raise RuntimeError("cannot load \\udcff.bin")

class Closes:
    def close(self):
        raise RuntimeError("cannot close \\udcff.bin")

Loads.predict = Closes.predict = lambda self, payload: 1
""")
    with pytest.raises(ModelLoadError, match="cannot load \N{REPLACEMENT CHARACTER}"), bench_of(f"{model}:Loads"):
        pass
    with bench_of(f"{model}:Closes") as (_, warnings):
        pass
    assert warnings == ["closing model odd:Closes failed: RuntimeError: cannot close \N{REPLACEMENT CHARACTER}.bin"]


def test_a_result_that_can_be_written_and_not_read_fails_its_event(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text("""
import msgspec

def predict(payload):
    return {"ext": msgspec.msgpack.Ext(5, b"x"), "raw": msgspec.Raw(b"\\xc1"), "good": 1}[payload["return"]]
""")
    packed = {"content-type": "application/msgpack"}
    with bench_of(f"{tmp_path}/odd.py:predict") as (bench, _):
        names = ("ext", "good", "raw", "good")
        bodies = [MSGPACK.encode({"return": name}) for name in names]
        bench.executor.submit([Event(message(body, given=packed), str(n)) for n, body in enumerate(bodies)])
        outcomes = bench.wait(4)
        assert failures(outcomes) == {"0": "UnencodableResult", "2": "UnencodableResult"}
        assert [outcome.prediction for outcome in outcomes if not outcome.failure] == [1, 1]
        assert not bench.fatal


def test_batches_need_predict_batch() -> None:
    with pytest.raises(ModelLoadError, match="has no predict_batch"), bench_of("sim:", batch_size=4):
        pass


def test_a_model_that_can_no_longer_be_loaded_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infertool.consumer.processes.pool.MOST_STARTS", 2)
    model = tmp_path / "once.py"
    model.write_text(f"import os\nos.unlink({str(model)!r})\n\n\ndef predict(payload):\n    os._exit(1)\n")
    with bench_of(f"{model}:predict") as (bench, warnings):
        bench.submit(1)
        assert failures(bench.wait(1)) == {"0": "WorkerDied"}
        deadline = time.monotonic() + LONG
        while not bench.fatal and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "no file" in str(bench.fatal[0])
        assert any("no worker process could be started" in warning for warning in warnings)


def test_a_replacement_whose_warm_up_hangs_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infertool.consumer.processes.pool.LONG_START_S", 1)
    starts, model = hangs_at_start(tmp_path, 2)
    with bench_of(model) as (bench, warnings):
        bench.submit(1, do="exit")
        assert failures(bench.wait(1)) == {"0": "WorkerDied"}
        bench.submit(3)
        bench.wait(4)
        assert len(set(pids(bench))) == 1
    assert len(list(starts.iterdir())) >= 3
    assert any("the worker process was not ready within " in warning for warning in warnings)
