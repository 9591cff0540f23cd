"""`--publish stdout`: a line an event, whatever is in it; on a terminal nothing of it is raw."""

from __future__ import annotations

import json
import sys

from tests.bus.conftest import Bus
from tests.support.running import CREDENTIALS, environment
from tests.support.terminal import Terminal

EVIL = "\u2028\x85\x9b31m\u202e\x7f"
PRETTY = [
    json.dumps({"event_id": f"e-{n}", "amount": 1.5, "text": EVIL}, indent=indent, ensure_ascii=False).encode()
    for n, indent in enumerate((None, 2, "\t"))
] + [
    b'{"event_id":"e-3",\r\n "amount" : 1.50,\r"text":"%b"}' % EVIL.encode(),
    b'\r\n{"event_id":"e-4","x":\n[1.0\n]}\n',
]
BAD = b'{\n"event_id": "e-5"\n'


def arguments(bus: Bus) -> list[str]:
    return [
        "consume", "--broker", bus.broker.url, "--queue", bus.queue, "--dlq", bus.dlq, "--publish", "stdout",
        "--model", "sim:?failure_rate=0", "--max-messages", "6",
    ]  # fmt: skip


def send(bus: Bus) -> None:
    raw = bus.raw()
    raw.send(bus.queue, (({}, body) for body in [*PRETTY, BAD]))
    raw.close()


def test_an_event_is_a_line(bus: Bus) -> None:
    send(bus)
    consumer = bus.consume("--publish", "stdout", "--max-messages", "6")
    output, _ = consumer.process.communicate(timeout=120)
    *lines, summary, rest = output.split(b"\n")
    assert (rest, json.loads(summary)["received"]) == (b"", 6)
    found = {document["event_id"]: document for document in map(json.loads, lines)}
    assert len(lines) == 6
    assert [found[f"e-{n}"]["original_payload"]["text"] for n in range(4)] == [EVIL] * 4
    assert b'"amount":1.50' in output
    assert b'{"event_id":"e-4","x":[1.0]}' in output


def test_nothing_is_raw_on_a_terminal(embedded_bus: Bus) -> None:
    send(embedded_bus)
    command = [sys.executable, "-m", "infertool", "--quiet", *arguments(embedded_bus)]
    state = {"INFERTOOL_CONSUME__STATE_DIR": str(embedded_bus.folder / "state")}
    with Terminal(command, width=2000, env=environment(**CREDENTIALS, TERM="dumb", **state)) as terminal:
        lines = terminal.finish().decode().split("\r\n")
    documents = [json.loads(line) for line in lines if line.startswith("{")]
    assert len(documents) == 6
    assert all(line.isprintable() for line in lines)
    assert EVIL in [(each["original_payload"] or {}).get("text") for each in documents]
