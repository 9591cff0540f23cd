"""Models that misbehave: their events end as dead letters with alerts, and the consumer goes on and sums up."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from tests.bus.conftest import Bus
from tests.support.hub import HubProcess
from tests.support.running import CREDENTIALS, infertool
from tests.support.viewer import Viewer

LONG = 240
ONE_TRY = {"INFERTOOL_CONSUME__RETRY_BASE_S": "0.01", "INFERTOOL_CONSUME__RETRY_MAX_S": "0.01"}


def write(bus: Bus, text: str) -> str:
    """Write a model, and return its spec."""
    file = bus.folder / "odd.py"
    file.write_text(textwrap.dedent(text))
    return f"{file}:Model"


ODD = """
    import math
    import threading
    from dataclasses import dataclass, field

    from infertool import InferenceError


    @dataclass
    class Unset:
        tags: set
        label: str = field(init=False)


    @dataclass(slots=True)
    class Slots:
        score: float
        label: str = field(init=False)


    class Proxy:
        @property
        def __class__(self):
            raise RuntimeError("working outside of a context")


    class Items(dict):
        def items(self):
            raise RuntimeError("no items")


    class Forgetful(InferenceError):
        def __init__(self, field):
            self.field = field


    class ExitText(Exception):
        def __str__(self):
            raise SystemExit(3)


    class Unusual(BaseException):
        pass


    class NoText(Exception):
        def __str__(self):
            raise RuntimeError("not even a text")


    def recursive():
        found = []
        found.append(found)
        return found


    def deep():
        found = {}
        for _ in range(2000):
            found = {"x": found}
        return found


    class Model:
        def predict(self, payload):
            match payload["do"]:
                case "fine":
                    return {"class": "A"}
                case "none":
                    return None
                case "nan":
                    return {"confidence": math.nan}
                case "set":
                    return {1, 2}
                case "bytes":
                    return {"image": b"\\x00"}
                case "surrogate":
                    return {"text": "\\ud800"}
                case "keys":
                    return {1: "x", (1, 2): "y"}
                case "huge":
                    return 10 ** 400
                case "recursive":
                    return recursive()
                case "deep":
                    return deep()
                case "slots":
                    return Slots(0.5)
                case "unset":
                    return Unset({1})
                case "proxy":
                    return Proxy()
                case "inner-proxy":
                    return {"user": Proxy()}
                case "items":
                    return Items(a=10 ** 30)
                case "forgetful":
                    raise Forgetful("amount")
                case "exit-text":
                    raise ExitText
                case "lock":
                    return threading.Lock()
                case "exit":
                    raise SystemExit(7)
                case "interrupt":
                    raise KeyboardInterrupt
                case "base":
                    raise Unusual("beyond Exception")
                case "generator":
                    raise GeneratorExit
                case "no-text":
                    raise NoText
                case "long-text":
                    raise ValueError("x" * 5_000_000)
                case "odd-text":
                    raise ValueError("a\\0b\\nc: \\ud800 \\x1b[2J")
                case "memory":
                    raise MemoryError
                case "stop":
                    raise StopIteration
"""
FINE = {"fine", "none", "nan", "huge", "slots"}
UNENCODABLE = {
    "set",
    "bytes",
    "surrogate",
    "keys",
    "recursive",
    "deep",
    "lock",
    "unset",
    "proxy",
    "inner-proxy",
    "items",
}
RAISED = {
    "exit": "SystemExit", "interrupt": "KeyboardInterrupt", "base": "Unusual", "generator": "GeneratorExit",
    "no-text": "NoText", "long-text": "ValueError", "odd-text": "ValueError", "memory": "MemoryError",
    "stop": "StopIteration", "forgetful": "Forgetful", "exit-text": "ExitText",
}  # fmt: skip


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_whatever_a_model_returns_or_raises(bus: Bus, executor: str) -> None:
    wanted = FINE | UNENCODABLE | RAISED.keys()
    raw = bus.raw()
    raw.send(bus.queue, (({"event_id": name}, json.dumps({"do": name}).encode()) for name in sorted(wanted)))
    raw.close()
    options = ("--max-messages", str(len(wanted)), "--max-attempts", "2", "--executor", executor)
    consumer = bus.consume(*options, "--log-format", "json", model=write(bus, ODD), **ONE_TRY)
    summary = consumer.finish()
    assert all(json.loads(line)["message"] for line in consumer.log.read_text().splitlines())
    assert bus.viewer.wait(len(wanted), LONG)
    assert set(bus.viewer.results) == FINE
    types = {event_id: bus.viewer.payloads[event_id]["error_type"] for event_id in bus.viewer.alerts}
    assert types == {**RAISED, **dict.fromkeys(UNENCODABLE, "UnencodableResult")}
    assert set(bus.viewer.alerts.values()) == {1}
    assert sorted(bus.dead_ids()) == sorted(types)
    assert summary["dead_lettered"] == len(types)
    assert summary["handed_back"] == bus.left() == 0


# What `contextlib.redirect_stderr` on two threads leaves where they cross, and a model that closes the stream itself.
CLOSES = """
    import os
    import sys


    class Model:
        def predict(self, payload):
            if payload["do"] == "cross":
                with open(os.devnull, "w") as null:
                    sys.stderr = null
            else:
                sys.stderr.close()
            raise ValueError("told on standard error")
"""


@pytest.mark.parametrize("deed", ["cross", "close"])
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_model_that_leaves_standard_error_closed(embedded_bus: Bus, deed: str, log_format: str) -> None:
    bus = embedded_bus
    raw = bus.raw()
    raw.send(bus.queue, (({"event_id": f"e-{n}"}, json.dumps({"do": deed}).encode()) for n in range(20)))
    raw.close()
    options = ("--max-messages", "20", "--max-attempts", "2", "--log-format", log_format)
    consumer = bus.consume(*options, model=write(bus, CLOSES), **ONE_TRY)
    summary = consumer.finish()
    assert summary["dead_lettered"] == 20
    assert "told on standard error" in consumer.log.read_text()
    assert "Traceback" not in consumer.log.read_text()


def test_a_model_that_hangs(bus: Bus) -> None:
    """Its event fails by the timeout, and others go on; the process ends although calls still hang."""
    model = write(bus, """
        import threading


        class Model:
            def predict(self, payload):
                if int(payload["request_id"][2:]) % 5 == 0:
                    threading.Event().wait()
                return {}
    """)  # fmt: skip
    ids = bus.send(10)
    options = ("--max-messages", "10", "--max-attempts", "1", "--concurrency", "2")
    summary = bus.consume(*options, model=model, INFERTOOL_CONSUME__TIMEOUT_S="2").finish()
    assert bus.viewer.wait(10, LONG)
    assert set(bus.viewer.alerts) == {ids[0], ids[5]} == set(bus.dead_ids())
    assert bus.viewer.payloads[ids[0]]["error_type"] == "Timeout"
    assert summary["succeeded"] == 8
    assert bus.left() == 0


def test_a_model_that_always_hangs_ends_the_consumer_with_the_reason(embedded_bus: Bus) -> None:
    bus = embedded_bus
    ids = bus.send(20)
    consumer = bus.consume(
        "--max-attempts", "1", "--concurrency", "2", model="fixtures/models/hangs.py:predict",
        INFERTOOL_CONSUME__TIMEOUT_S="0.3", INFERTOOL_CONSUME__STOP_DEADLINE_S="2",
    )  # fmt: skip
    assert consumer.process.wait(LONG) == 1
    [*_, last] = consumer.log.read_text().splitlines()
    assert last.startswith("infertool: ")
    assert "consume.timeout_s" in last
    assert bus.consume("--exit-when-idle", "1s").finish()["dead_lettered"] == 0
    assert bus.viewer.wait(len(ids), LONG)
    assert set(bus.viewer.alerts) == set(bus.dead_ids())


@pytest.mark.parametrize("how", ["raise OSError('disk full')", "raise SystemExit(9)", "raise BaseException"])
def test_a_close_that_raises_does_not_replace_the_summary(embedded_bus: Bus, how: str) -> None:
    bus = embedded_bus
    model = write(bus, f"""
        class Model:
            def predict(self, payload):
                return {{}}

            def close(self):
                {how}
    """)  # fmt: skip
    bus.send(1)
    consumer = bus.consume("--max-messages", "1", model=model)
    assert consumer.finish()["succeeded"] == 1
    assert "closing model odd:Model failed" in consumer.log.read_text()


def test_a_model_that_raises_while_phoenix_is_away(embedded_bus: Bus) -> None:
    """Failures are told first and buried then: none is buried while nobody can be told."""
    bus = embedded_bus
    hub = HubProcess().start()
    viewer = Viewer(hub.url)
    consumer = bus.consume("--phoenix", hub.url, "--max-attempts", "2", model=write(bus, """
        class Model:
            def predict(self, payload):
                raise ValueError("never works")
    """), **ONE_TRY)  # fmt: skip
    first = bus.send(1)
    assert viewer.wait(1, LONG)
    viewer.close()
    hub.stop()
    ids = bus.send(30)
    assert sorted(bus.dead_ids()) == first
    hub.start()
    viewer = Viewer(hub.url)
    letters: list[str] = []
    while len(letters) < len(ids):
        letters += bus.dead_ids()
    assert sorted(letters) == sorted(ids)
    consumer.terminate()
    summary = consumer.finish()
    assert summary["failed"] == summary["dead_lettered"] == 31
    assert bus.left() == 0
    viewer.close()
    hub.stop()


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("import_error.py:predict", "No module named 'no_such_package_anywhere'"),
        ("import_exits.py:predict", "no licence found"),
        ("constructor_failure.py:Model", "weights.bin: no such file"),
        ("constructor_failure.py:NeedsArguments", "path"),
        ("warm_up_failure.py:Model", "weights.bin: checksum mismatch"),
        ("unfit.py:NoPredict", "predict"),
        ("unfit.py:nothing_there", "nothing_there"),
        ("no_such_file.py:predict", "no file"),
    ],
)
def test_a_model_that_cannot_be_used_stops_the_start(model: str, reason: str) -> None:
    """Before any server is asked: nothing listens at these addresses."""
    spec = f"fixtures/models/{model}"
    nowhere = ("--broker", "stomp://127.0.0.1:1", "--phoenix", "ws://127.0.0.1:1/socket/websocket")
    done = infertool("consume", "--model", spec, *nowhere, **CREDENTIALS)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"infertool: model {spec} ")
    assert reason in line
    assert "; " in line, "it does not say what to do"


def test_a_model_that_failed_its_warm_up_is_closed(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(
        textwrap.dedent("""
        class Model:
            def warm_up(self):
                raise RuntimeError("cold")

            def predict(self, payload):
                return {}

            def close(self):
                print("closed")
                raise OSError("twice bad")
    """)
    )
    done = infertool("consume", "--model", f"{tmp_path / 'm.py'}:Model", **CREDENTIALS)
    assert (done.returncode, done.stdout) == (1, "")
    assert "closed" in done.stderr.splitlines()
    assert done.stderr.splitlines()[-1].startswith("infertool: model ")
    assert "cold" in done.stderr.splitlines()[-1]
