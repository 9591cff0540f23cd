"""A model's error carries where it came from into the log, the alert and the dead letter, in every executor."""

from __future__ import annotations

import json

import pytest

from tests.bus.conftest import Bus
from tests.bus.test_model_globals import HOW
from tests.support.running import CREDENTIALS, infertool

LONG = 240
MODEL = """
def column(payload):
    return payload["amount"]

def scale(payload):
    try:
        return column(payload)
    except KeyError as error:
        raise ValueError("no amount") from error

class Model:
    def predict(self, payload):
        return {"scaled": scale(payload)}

    def predict_batch(self, payloads):
        return [self.predict(payload) for payload in payloads]
"""
CAUSE = ["caused by KeyError: 'amount'", "odd.py:7 in scale", "odd.py:3 in column"]
LINES = ["odd.py:13 in Model.predict", "odd.py:9 in scale", *CAUSE]


@pytest.mark.parametrize("how", HOW)
def test_a_models_error_says_where_it_was_raised(bus: Bus, how: str) -> None:
    (bus.folder / "odd.py").write_text(MODEL)
    ids = bus.send(3)
    consumer = bus.consume(
        "--max-messages", "3", "--max-attempts", "2", "--log-format", "json", *HOW[how],
        model=f"{bus.folder / 'odd.py'}:Model", INFERTOOL_CONSUME__RETRY_BASE_S="0.01",
    )  # fmt: skip
    assert consumer.finish()["dead_lettered"] == 3
    assert bus.viewer.wait(3, LONG)
    entries = [json.loads(line) for line in consumer.log.read_text().splitlines()]
    [logged, *_] = [entry for entry in entries if "failed at infer" in entry["message"]]
    assert logged["message"].endswith("odd.py:9 in scale)")
    options = ("--broker", bus.broker.url)
    shown = infertool("peek-dlq", bus.dlq, "--id", ids[0], *options, **CREDENTIALS).stdout.splitlines()
    document = json.loads(infertool("peek-dlq", bus.dlq, "--id", ids[0], "-o", "json", *options, **CREDENTIALS).stdout)
    told = [logged["traceback"], bus.viewer.payloads[ids[0]]["traceback"], document["traceback"]]
    trace = shown[shown.index("traceback") + 1 :]
    for lines in [*(text.split("\n") for text in told), trace[: trace.index("")]]:
        own = [line.strip().replace(f"{bus.folder}/", "") for line in lines]
        assert [line for line in own if "predict_batch" not in line] == LINES
    assert document["headers"]["dlq_traceback"] == document["traceback"]


GROUP = """
import asyncio

async def column(payload, name):
    return payload[name]

class Model:
    async def predict(self, payload):
        async with asyncio.TaskGroup() as group:
            group.create_task(column(payload, "amount"))
            group.create_task(asyncio.sleep(60))

    async def predict_batch(self, payloads):
        return [await self.predict(payload) for payload in payloads]
"""


@pytest.mark.parametrize("how", HOW)
def test_a_group_of_errors_is_told_as_its_member(embedded_bus: Bus, how: str) -> None:
    bus = embedded_bus
    (bus.folder / "odd.py").write_text(GROUP)
    ids = bus.send(3)
    consumer = bus.consume(
        "--max-messages", "3", "--max-attempts", "1", "--log-format", "json", *HOW[how],
        model=f"{bus.folder / 'odd.py'}:Model",
    )  # fmt: skip
    assert consumer.finish()["dead_lettered"] == 3
    assert bus.viewer.wait(3, LONG)
    entries = [json.loads(line) for line in consumer.log.read_text().splitlines()]
    [logged, *_] = [entry for entry in entries if "failed at infer" in entry["message"]]
    assert "KeyError: 'amount' (" in logged["message"]
    assert logged["message"].endswith("odd.py:5 in column)")
    options = ("--id", ids[0], "-o", "json", "--broker", bus.broker.url)
    letter = json.loads(infertool("peek-dlq", bus.dlq, *options, **CREDENTIALS).stdout)
    for told in (logged, bus.viewer.payloads[ids[0]], letter):
        assert (told["error_type"], told["error"]) == ("KeyError", "'amount'")
        assert "odd.py:5 in column\nmember of ExceptionGroup: " in told["traceback"]


def test_a_replay_leaves_the_traceback_behind(bus: Bus) -> None:
    (bus.folder / "odd.py").write_text(MODEL)
    ids = bus.send(1)
    bus.consume("--max-messages", "1", "--max-attempts", "1", model=f"{bus.folder / 'odd.py'}:Model").finish()
    done = infertool("replay-dlq", bus.dlq, "--yes", "--broker", bus.broker.url, **CREDENTIALS)
    assert done.returncode == 0, done.stderr
    [(headers, _)] = bus.drain(bus.queue)
    assert headers["event_id"] == ids[0]
    assert not [name for name in headers if name.startswith("dlq_")]


def test_the_longest_traceback_fits_into_a_header(bus: Bus) -> None:
    """Each line break and colon takes two bytes on the wire, and a header's line has at most 10 KiB."""
    name = "x:" * 120
    frames = "\n".join(f"def f{n}(p):\n    return f{n + 1}(p)" for n in range(60))
    (bus.folder / "odd.py").write_text(
        f"{frames}\ndef f60(p):\n    raise ValueError('no')\n\ndef predict(p):\n"
        f"    try:\n        exec(compile('f0(1)', {name!r}, 'exec'), globals())\n"
        f"    except ValueError as error:\n        raise KeyError({':' * 5000!r}) from error\n"
    )
    bus.send(3)
    summary = bus.consume(
        "--max-messages", "3", "--max-attempts", "1", model=f"{bus.folder / 'odd.py'}:predict"
    ).finish()
    assert (summary["dead_lettered"], summary["reconnects"]) == (3, 0)
    assert len(bus.dead_ids()) == 3
