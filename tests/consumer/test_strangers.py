"""Models that fork and go on twice, and worker processes whose connection says what no call was answered with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import orjson
import psutil
import pytest

from infertool.consumer.batching.port import FixedBatches
from infertool.consumer.processes.pool import Processes
from infertool.consumer.processes.wire import WorkerConfig
from infertool.settings import ModelSettings
from infertool.workers.process import Process
from tests.consumer.harness import LONG, Bench, failures
from tests.support.running import environment

MODEL = "fixtures/models/strange.py:Strange"
FORKS = ["forks", "forks_and_raises", "forks_and_exits", "forks_twice"]
STRAYS = [
    "writes", "writes_a_little", "answers_wrong_number", "answers_earlier_number", "answers_no_parts",
    "answers_two_parts", "answers_halve_it", "answers_ready", "answers_nonsense",
]  # fmt: skip


def run(deed: str, batch_size: int = 1) -> tuple[Bench, list[str]]:
    """Try an event with that deed among others; return what came of it, and the warnings."""
    warnings: list[str] = []
    with Processes(WorkerConfig(ModelSettings(spec=MODEL), batch_size > 1, 0, 0), 1, warnings.append) as worker_pool:
        bench = Bench(worker_pool, concurrency=1, batches=FixedBatches(batch_size, 0.0) if batch_size > 1 else None)
        bench.submit(200)
        bench.wait(200)
        bench.submit_all([{"n": n, **({"do": deed} if n == 5 else {})} for n in range(20)])
        bench.wait(220)
        bench.submit(1)
        bench.wait(221)
        assert bench.stop()
    assert len(bench.outcomes) == 221
    assert not bench.fatal
    assert {outcome.event.attempts for outcome in bench.outcomes} == {1}
    return bench, warnings


@pytest.mark.parametrize("batch_size", [1, 4], ids=["singly", "in batches"])
@pytest.mark.parametrize("deed", [*FORKS, "forks_in_c"])
def test_a_copy_of_a_worker_process_answers_nothing(deed: str, batch_size: int) -> None:
    bench, warnings = run(deed, batch_size)
    assert not failures(bench.outcomes)
    assert len({orjson.loads(outcome.prediction.text)["pid"] for outcome in bench.outcomes}) == 1
    assert not warnings


@pytest.mark.parametrize("deed", STRAYS)
def test_what_no_call_was_answered_with_is_dropped_and_the_process_replaced(deed: str) -> None:
    bench, warnings = run(deed)
    assert not failures(bench.outcomes)
    assert len({orjson.loads(outcome.prediction.text)["n"] for outcome in bench.outcomes[200:220]}) == 20
    [warning] = warnings
    assert "sent what is no answer to a call, which was dropped; another takes its place" in warning


def test_a_worker_process_that_cannot_answer_any_more() -> None:
    bench, warnings = run("closes_all")
    assert failures(bench.outcomes) == {"5": "WorkerDied"}
    assert len(warnings) == 1


def test_what_a_process_says_while_it_has_nothing_to_do() -> None:
    """A thread of the model's writes into the connection."""
    warnings: list[str] = []
    with Processes(WorkerConfig(ModelSettings(spec=MODEL), False, 0, 0), 1, warnings.append) as worker_pool:
        bench = Bench(worker_pool, concurrency=1)
        bench.submit(1)
        bench.wait(1)
        [handle] = worker_pool._processes
        os.write(_other_end(handle), b"hello")
        bench.submit(1)
        assert not failures(bench.wait(2))
        assert bench.stop()
    assert "sent what is no answer" in warnings[0]


def _other_end(handle: Process) -> int:
    """Open the worker's end of the connection, as one of its threads would have it."""
    command = psutil.Process(handle.pid).cmdline()
    number = int(command[command.index("infertool.consumer.processes.child") + 1])
    return _pidfd_getfd(handle.pidfd, number)


def _pidfd_getfd(pidfd: int, number: int) -> int:
    import ctypes

    found: int = ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, number, 0)
    if found < 0:
        pytest.skip("this machine does not let a process have another's files")
    return found


CONSUMER = """
import json, os, sys, threading
from infertool.models import loader
from infertool.consumer.worker import Threads
from infertool.consumer.batching.port import FixedBatches
from tests.consumer.harness import Bench
deed, how = sys.argv[1:]
options = {"batches": FixedBatches(4, 0.0)} if how == "batches" else {}
bench = Bench(Threads(loader.load("fixtures/models/strange.py:Strange"), in_batches=how == "batches"), **options)
events = bench.events(20)
events[5:6] = bench.events(1, do=deed)
(bench.executor.run_or_submit if how == "inline" else bench.executor.submit)(events)
bench.wait(20)
bench.submit(5)
bench.wait(25)
os.write(1, b"%d %d\\n" % (os.getpid(), len(bench.outcomes)))
bench.stop()
"""


@pytest.mark.parametrize("how", ["threads", "inline", "batches"])
@pytest.mark.parametrize("deed", FORKS)
def test_a_copy_of_the_consumer_does_not_go_on(deed: str, how: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CONSUMER, deed, how], stdout=subprocess.PIPE, env=environment(), start_new_session=True
    )
    # Reads until the last copy is gone: each has the pipe.
    output, _ = process.communicate(timeout=2 * LONG)
    assert Counter(output.splitlines()) == {b"%d 25" % process.pid: 1}
    assert process.returncode == 0


@pytest.mark.parametrize("where", ["", "__init__", "warm_up"])
def test_a_copy_made_while_the_model_is_loaded_does_not_go_on(where: str, tmp_path: Path) -> None:
    body = "\n".join(
        f"    def {name}(self):\n        {'os.fork()' if name == where else 'pass'}" for name in ("__init__", "warm_up")
    )
    fork = "" if where else "os.fork()\n"
    (tmp_path / "m.py").write_text(
        f"import os\n{fork}class Model:\n{body}\n    def predict(self, payload):\n        return 1\n"
    )
    code = (
        "import os, sys; from infertool.models import loader;"
        "loader.warm_up(loader.load(sys.argv[1])); os.write(1, b'loaded\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"{tmp_path / 'm.py'}:Model"], capture_output=True, env=environment(), timeout=LONG
    )
    assert done.stdout == b"loaded\n"
