"""Large and exact numbers on their way: broker, model, channel server, `tail`, dead letter, replay, archive."""

from __future__ import annotations

import json

import pytest

from tests.bus.conftest import Bus
from tests.support.modelserver import ModelServer, reply
from tests.support.running import CREDENTIALS, Running, infertool

BIG = 12345678901234567890123456789
MODEL = """
def predict(payload):
    assert type(payload["id"]) is int
    if payload.get("fail"):
        raise ValueError("told to")
    return {"next": payload["id"] + 1}
"""
GOOD = b'{\n  "id": 12345678901234567890123456789,\n  "amt": 12345678901234567.89, "rate": 1.10, "event_id": %d\n}'
BAD = b'{"id":12345678901234567890123456789,"amt":12345678901234567.89,"rate":1.10,"tiny":1E-7,"fail":1}'


@pytest.mark.parametrize("executor", [(), ("--executor", "processes", "--workers", "1")])
def test_numbers_stay_what_they_are(bus: Bus, executor: tuple[str, ...]) -> None:
    (bus.folder / "model.py").write_text(MODEL)
    tail = Running(
        bus.folder / "tails", "tail", "public:results", "public:alerts", "--phoenix", bus.hub.url, "-o", "jsonl",
        "--count", "2", "--record", str(bus.folder / "record.jsonl"),
    )  # fmt: skip
    tail.wait_for("following")
    raw = bus.raw()
    event_id = 10**25 + int(bus.queue.rpartition(".")[2], 16)
    raw.send(bus.queue, [({}, GOOD % event_id), ({"event_id": "bad"}, BAD)])
    raw.close()
    _consume(bus, executor)
    output, _ = tail.process.communicate(timeout=120)
    recorded = (bus.folder / "record.jsonl").read_bytes()
    for text in (output, recorded):
        assert text.count(b"\n") == 2
        assert GOOD.replace(b"\n", b"").replace(b" ", b"") % event_id in text
        assert BAD in text
        assert b'"prediction":{"next":%d}' % (BIG + 1) in text
        assert b'"event_id":"%d"' % event_id in text
    _replayed(bus)


EXACT = b'{"amt":12345678901234567.89,"p":[0.1234567890123456789,{"q":1.5e-320}],"n":12345678901234567890123}'


@pytest.mark.parametrize("cache", [(), ("--cache", "100:1h")])
@pytest.mark.parametrize("batch", [(), ("--batch-size", "2")])
def test_a_model_server_and_the_viewer_get_each_number_as_it_is(
    bus: Bus, cache: tuple[str, ...], batch: tuple[str, ...]
) -> None:
    server = ModelServer(handler=lambda request: reply(request.body)).start()
    raw = bus.raw()
    raw.send(bus.queue, [({"event_id": f"e{place}"}, EXACT) for place in range(4)])
    raw.close()
    done = bus.consume(
        "--max-messages", "4", "--publish", "stdout", *cache, *batch, model=server.url
    )  # fmt: skip
    output, _ = done.process.communicate(timeout=120)
    server.stop()
    assert output.count(b'"prediction":' + EXACT) == 4
    for request in server.requests:
        assert request.body.replace(EXACT, b"").strip(b"[,]") == b""


def _consume(bus: Bus, executor: tuple[str, ...]) -> None:
    done = bus.consume(
        "--max-messages", "2", *executor,
        model=f"{bus.folder}/model.py:predict", INFERTOOL_CONSUME__MAX_ATTEMPTS="1",
    ).finish()  # fmt: skip
    assert (done["succeeded"], done["failed"]) == (1, 1)


def _replayed(bus: Bus) -> None:
    target = f"{bus.queue}.again"
    peeked = infertool("peek-dlq", bus.dlq, "--broker", bus.broker.url, "-o", "jsonl", **CREDENTIALS)
    assert BAD.decode() in peeked.stdout
    done = infertool(
        "replay-dlq", bus.dlq, "--broker", bus.broker.url, "--to", target, "--set", "x=1", "--set", "fail=2.50",
        "--yes", **CREDENTIALS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    archive = bus.folder / "archive.jsonl"
    infertool("drain-dlq", target, "--broker", bus.broker.url, "--to", str(archive), "--yes", **CREDENTIALS)
    kept = [json.loads(line) for line in archive.read_bytes().split(b"\n") if line]
    expected = BAD.replace(b'"fail":1}', b'"fail":2.50,"x":1}').decode()
    assert [each["body"] for each in kept] == [expected]
