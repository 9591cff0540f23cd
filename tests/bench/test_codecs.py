"""The two frame codecs, in isolation."""

from __future__ import annotations

import orjson
from pytest_benchmark.fixture import BenchmarkFixture

from infertool.brokers.stomp.frames import encode
from infertool.brokers.stomp.parser import FrameParser
from infertool.phoenix.frames import decode_text, encode_push
from tests.bench.harness.fixtures import Row
from tests.bench.harness.reference import REFERENCE

FRAMES = 1000


def test_stomp_parse(benchmark: BenchmarkFixture, row: Row) -> None:
    headers = {f"h{n}": f"value-{n}" for n in range(9)} | {"message-id": "ID:h-1", "ack": "a"}
    data = encode("MESSAGE", headers, REFERENCE.read_bytes()) * FRAMES
    frames = benchmark(lambda: FrameParser(version="1.2").feed(data))
    assert len(frames) == FRAMES
    if benchmark.stats:
        row("STOMP frames parsed (364 bytes, 11 headers)", f"{FRAMES / benchmark.stats['median']:.0f}/s", "report")


def test_phoenix_push_and_reply(benchmark: BenchmarkFixture, row: Row) -> None:
    payload = orjson.dumps({"event_id": "e", "original_payload": orjson.Fragment(REFERENCE.read_bytes())})
    reply = b'["1","9","service:inference","phx_reply",{"response":{},"status":"ok"}]'

    def both() -> None:
        for number in range(FRAMES):
            encode_push("1", str(number), "service:inference", "new_result", payload)
            decode_text(reply)

    benchmark(both)
    if benchmark.stats:
        row("Phoenix pushes encoded and replies decoded", f"{FRAMES / benchmark.stats['median']:.0f}/s", "report")
