"""What belongs to the whole process, changed by a model's code: streams, hooks, signals, logging."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

from tests.bus.conftest import Bus
from tests.support.hub import HubProcess
from tests.support.running import CREDENTIALS, environment
from tests.support.viewer import Viewer

pytestmark = pytest.mark.long

LONG = 240

IMPORTS = "import contextlib, ctypes, io, logging, logging.config, os, signal, socket, sys, threading, warnings\n"


def write(bus: Bus, *, load: str = "", predict: str = "", warm_up: str = "pass") -> str:
    """Write a model that does these things; return its spec."""
    file = bus.folder / "globals_.py"
    file.write_text(
        IMPORTS
        + textwrap.dedent(load)
        + "\n\nclass Model:\n    def warm_up(self):\n"
        + textwrap.indent(textwrap.dedent(warm_up), " " * 8)
        + "\n    def predict(self, payload):\n"
        + textwrap.indent(textwrap.dedent(predict), " " * 8)
        + "\n        return {'n': int(payload['request_id'][2:])}\n"
        + "    def predict_batch(self, payloads):\n        return [self.predict(payload) for payload in payloads]\n"
    )
    return f"{file}:Model"


HOW = {
    "inline": (),
    "threads": ("--concurrency", "4"),
    "batches": ("--batch-size", "4"),
    "processes": ("--executor", "processes", "--workers", "2"),
}
PRINTS = """
    print("by print")
    print("to the first stdout", file=sys.__stdout__)
    sys.stdout.write("by sys.stdout\\n")
    sys.stdout.buffer.write(b"by its buffer\\n")
    sys.stdout.buffer.flush()
    os.write(1, b"by os.write\\n")
    os.system("echo by a command")
    libc = ctypes.CDLL(None)
    libc.puts(b"by C")
    libc.fflush(None)
"""
PRINTED = {
    "by print", "to the first stdout", "by sys.stdout", "by its buffer", "by os.write", "by a command", "by C",
}  # fmt: skip


@pytest.mark.parametrize("how", HOW)
def test_what_a_model_prints_is_not_among_the_data(embedded_bus: Bus, how: str) -> None:
    bus = embedded_bus
    ids = bus.send(20)
    model = write(bus, load=PRINTS, predict=PRINTS, warm_up="print('warm')")
    consumer = bus.consume("--publish", "stdout", "--max-messages", "20", *HOW[how], model=model)
    output, _ = consumer.process.communicate(timeout=LONG)
    assert consumer.process.returncode == 0, consumer.log.read_text()
    *documents, summary = map(json.loads, output.splitlines())
    assert {document["event_id"] for document in documents} == set(ids)
    assert summary["succeeded"] == 20
    assert PRINTED | {"warm"} <= set(consumer.log.read_text().splitlines())


def test_what_a_model_prints_in_a_team_is_not_among_the_data(embedded_bus: Bus) -> None:
    bus = embedded_bus
    bus.send(20)
    model = write(bus, load=PRINTS, predict=PRINTS)
    consumer = bus.consume("--processes", "2", "--exit-when-idle", "2s", model=model)
    output, _ = consumer.process.communicate(timeout=LONG)
    assert consumer.process.returncode == 0, consumer.log.read_text()
    [summary] = map(json.loads, output.splitlines())
    assert summary["succeeded"] == 20
    # The lines of two processes may run into each other.
    assert consumer.log.read_text().count("by C") >= 20


LOGS = """
    logging.getLogger("theirs").warning("a warning of theirs")
    warnings.warn("a warning of Python's")
    print("to stderr", file=sys.stderr)
    os.write(2, b"by os.write to stderr\\n")
    print('{"by": "an object of theirs"}')
    try:
        raise ValueError("of theirs")
    except ValueError:
        logging.getLogger("theirs").exception("with a trace")
"""


@pytest.mark.parametrize(
    ("executor", "team"), [(HOW["processes"], ()), ((), ("--processes", "2")), (HOW["processes"], ("--processes", "2"))]
)
def test_with_json_logs_each_line_of_a_process_is_a_record_of_its_own(
    embedded_bus: Bus, executor: tuple[str, ...], team: tuple[str, ...]
) -> None:
    bus = embedded_bus
    bus.send(20)
    model = write(bus, load=PRINTS + LOGS, predict=PRINTS + LOGS)
    consumer = bus.consume("--exit-when-idle", "2s", "--log-format", "json", *executor, *team, model=model)
    assert consumer.finish()["succeeded"] == 20
    records = [json.loads(line) for line in consumer.log.read_text().splitlines()]
    assert all({"time", "level", "logger", "message"} <= record.keys() for record in records)
    theirs = [record for record in records if record.get("process") == ("worker" if executor else "consumer")]
    assert PRINTED | {"to stderr", "by os.write to stderr", '{"by": "an object of theirs"}'} <= {
        record["message"] for record in theirs
    }
    assert consumer.process.pid not in {record["pid"] for record in theirs}
    [warning, *_] = [record for record in theirs if record["message"] == "a warning of theirs"]
    assert (warning["level"], warning["logger"]) == ("warning", "theirs")
    assert "ValueError: of theirs" in next(r["trace"] for r in theirs if r["message"] == "with a trace")
    assert any("a warning of Python's" in record["message"] for record in theirs)


@pytest.mark.parametrize("how", ["threads", "processes"])
def test_a_model_has_no_input(embedded_bus: Bus, how: str) -> None:
    """What is piped into the command is not for the model, and a terminal is never waited for."""
    bus = embedded_bus
    bus.send(1)
    model = write(bus, predict="assert (sys.stdin.read(), os.read(0, 10)) == ('', b'')")
    done = subprocess.run(
        [
            sys.executable, "-m", "infertool", "consume", "--broker", bus.broker.url, "--queue", bus.queue,
            "--publish", "stdout", "--model", model, "--max-messages", "1", "--max-attempts", "1", *HOW[how],
        ],
        input=b"for nobody\n", capture_output=True, timeout=LONG, env=environment(**CREDENTIALS),
    )  # fmt: skip
    assert json.loads(done.stdout.splitlines()[0])["status"] == "SUCCESS", done.stderr


# How a model, or `contextlib.redirect_stderr` on several threads, leaves standard error.
HUSHED = {
    "closed": "sys.stderr.close()",
    "none": "sys.stderr = None",
    "silent": "sys.stderr = open(os.devnull, 'w')",
    "silent and closed": "sys.stderr = open(os.devnull, 'w'); sys.stderr.close()",
    "silent in C": "os.dup2(os.open(os.devnull, os.O_WRONLY), 2)",
}


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("left", HUSHED)
def test_a_model_that_hushes_standard_error_does_not_silence_ours(
    embedded_bus: Bus, left: str, log_format: str
) -> None:
    bus = embedded_bus
    bus.send(20)
    model = write(bus, predict=f"{HUSHED[left]}; print('printed'); assert payload['request_id'] != 'r-7', 'of theirs'")
    consumer = bus.consume(
        "--exit-when-idle", "1s", "--max-attempts", "1", "--concurrency", "4", "--log-format", log_format, model=model
    )
    assert consumer.finish()["succeeded"] == 19
    log = consumer.log.read_text()
    assert "failed at infer after 1 attempts: AssertionError: of theirs" in log
    assert "printed" in log
    assert bus.viewer.wait(20, LONG)


def test_a_model_that_catches_what_is_printed_catches_no_results(embedded_bus: Bus) -> None:
    bus = embedded_bus
    ids = bus.send(20)
    model = write(bus, predict="contextlib.redirect_stdout(io.StringIO()).__enter__(); print('caught')")
    output, _ = bus.consume("--publish", "stdout", "--max-messages", "20", model=model).process.communicate()
    assert {document.get("event_id") for document in map(json.loads, output.splitlines()[:20])} == set(ids)


THREAD = """
    def work():
        raise ValueError("in a thread of the model's")
    thread = threading.Thread(target=work, name="refresher")
    thread.start()
    thread.join()
    leaving = threading.Thread(target=sys.exit, args=(3,), name="leaver")
    leaving.start()
    leaving.join()
"""


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("where", ["load", "warm_up", "predict"])
def test_a_thread_of_the_models_that_raises_is_logged_and_the_run_goes_on(
    embedded_bus: Bus, where: str, log_format: str
) -> None:
    bus = embedded_bus
    ids = bus.send(20)
    consumer = bus.consume("--max-messages", "20", "--log-format", log_format, model=write(bus, **{where: THREAD}))
    assert consumer.finish()["succeeded"] == 20
    assert bus.viewer.wait(20, LONG)
    assert set(bus.viewer.results) == set(ids)
    log = consumer.log.read_text()
    assert "refresher" in log
    assert "in a thread of the model's" in log
    assert "globals_.py" in log
    assert "leaver" not in log
    if log_format == "json":
        [line, *_] = [each for each in map(json.loads, log.splitlines()) if each.get("thread") == "refresher"]
        assert "in work" in line["trace"]
        assert line["level"] == "error"


def test_a_thread_of_ours_that_dies_ends_the_run_whatever_hook_a_model_sets(embedded_bus: Bus) -> None:
    bus = embedded_bus
    bus.send(1)
    load = """
        threading.excepthook = lambda args: None
        from infertool.net.timing import Timers
        Timers._run = lambda self: 1 / 0
        Timers._run.__globals__["__name__"] = "infertool.net.timing"
    """
    consumer = bus.consume(model=write(bus, load=load))
    assert consumer.process.wait(LONG) == 1
    assert "ZeroDivisionError" in consumer.log.read_text()


LOGGING = {
    "basicConfig": "logging.basicConfig(stream=sys.stdout, level=logging.DEBUG, force=True)",
    "dictConfig": """logging.config.dictConfig({"version": 1, "root": {"level": "CRITICAL", "handlers": []}})""",
    "disable": "logging.disable(logging.CRITICAL)",
    "handlers": "logging.getLogger().handlers.clear()",
    "streams": "sys.stderr = open(os.devnull, 'w')",
}


@pytest.mark.parametrize("what", LOGGING)
@pytest.mark.parametrize("where", ["load", "predict"])
def test_the_logging_of_a_model_does_not_silence_ours(embedded_bus: Bus, what: str, where: str) -> None:
    bus = embedded_bus
    bus.send(40)  # one fails
    statement = LOGGING[what] + "\nlogging.getLogger('theirs').warning('a warning of theirs')"
    fails = "\nif payload['request_id'] == 'r-39': raise ValueError('this one fails')"
    done = {"load": {"load": statement, "predict": fails}, "predict": {"predict": statement + fails}}[where]
    consumer = bus.consume(
        "--publish", "stdout", "--max-messages", "40", "--max-attempts", "1", "--concurrency", "1",
        model=write(bus, **done),
    )  # fmt: skip
    output, _ = consumer.process.communicate(timeout=LONG)
    assert all(map(json.loads, output.splitlines()))
    assert len(output.splitlines()) == 41
    log = consumer.log.read_text()
    assert "ValueError: this one fails" in log
    assert log.count("failed at infer") == 1


PROCESS_STATE = """
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    sys.setrecursionlimit(100)
    socket.setdefaulttimeout(0.001)
    sys.excepthook = sys.unraisablehook = None
"""


@pytest.mark.parametrize("how", ["threads", "processes"])
@pytest.mark.parametrize("where", ["load", "warm_up"])
def test_a_run_stands_what_a_model_does_to_its_process(embedded_bus: Bus, where: str, how: str) -> None:
    """A connection that is lost ends no process, and SIGTERM ends it in good order."""
    bus = embedded_bus
    hub = HubProcess().start()
    viewer = Viewer(hub.url)
    ids = bus.send(20)
    consumer = bus.consume("--phoenix", hub.url, *HOW[how], model=write(bus, **{where: PROCESS_STATE}))
    assert viewer.wait(20, LONG)
    viewer.close()
    for _ in range(2):
        hub.kill()
        ids += bus.send(20)
        hub.start()
    viewer = Viewer(hub.url)
    for _ in range(LONG):
        ids += bus.send(1)
        if viewer.wait(1, 1):
            break
    consumer.terminate()
    summary = consumer.finish()
    assert summary["reconnects"] >= 1
    assert summary["succeeded"] + bus.left() == len(ids)
    viewer.close()
    hub.stop()
