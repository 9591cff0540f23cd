"""Dead-lettering goes on by itself once a broker whose store was full has room again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bus.test_poisonous_letters import LONG, wait
from tests.support import activemq as real
from tests.support.brokers import is_empty
from tests.support.rawstomp import RawStomp
from tests.support.running import CREDENTIALS, Running

pytestmark = pytest.mark.activemq

QUEUE, DEAD, FILLER = "/queue/full.in", "/queue/full.dead", "/queue/full.filler"
EVENTS = 58
SMALL_STORE = (
    'directory="${activemq.data}/kahadb"',
    'directory="${activemq.data}/kahadb" journalMaxFileLength="1mb" cleanupInterval="500" checkpointInterval="250"',
)
REFUSES, BLOCKS = ' sendFailIfNoSpace="true"', ""


@pytest.fixture(params=[REFUSES, BLOCKS], ids=["refuses", "blocks"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[real.ActiveMQ]:
    """A broker that holds 8 MB, and refuses more, or blocks who sends it (its default)."""
    real.install()
    broker = real.ActiveMQ(tmp_path / "base")
    config = tmp_path / "base" / "conf" / "activemq.xml"
    text = config.read_text().replace(*SMALL_STORE)
    text = text.replace("<systemUsage><systemUsage>", f"<systemUsage><systemUsage{request.param}>")
    limit = '<storeUsage><storeUsage limit="8 mb"/></storeUsage>'
    config.write_text(text.replace("</memoryUsage></systemUsage>", f"</memoryUsage>{limit}</systemUsage>"))
    broker.start()
    yield broker
    broker.remove()


def fill(broker: real.ActiveMQ) -> None:
    """Send until the store takes nothing more: the broker says so, or says nothing."""
    raw = RawStomp(broker.stomp_port)
    for size in (200_000, 20_000, 2_000):
        for _ in range(100):
            raw.write(b"SEND\ndestination:%b\npersistent:true\nreceipt:r\n\n" % FILLER.encode() + b"x" * size + b"\0")
            if raw.answer(5.0) != "RECEIPT":
                break
        raw.close()
        raw = RawStomp(broker.stomp_port)
    raw.close()


def drain(broker: real.ActiveMQ, queue: str) -> int:
    raw = RawStomp(broker.stomp_port)
    count = len(raw.drain(queue, is_empty=lambda: is_empty(broker, queue)))
    raw.close()
    return count


@pytest.mark.long
def test_after_the_store_was_full(small: real.ActiveMQ, tmp_path: Path) -> None:
    raw = RawStomp(small.stomp_port)
    raw.send(QUEUE, (({"event_id": f"e-{n}"}, b"{broken" + b" " * 3000) for n in range(EVENTS)))
    raw.close()
    fill(small)
    consumer = Running(
        tmp_path / "consumer",
        "consume", "--broker", small.url, "--queue", QUEUE, "--dlq", DEAD, "--publish", "none", "--model",
        "fixtures/models/noop.py:predict", "--max-messages", str(EVENTS), "-o", "json",
        **CREDENTIALS, INFERTOOL_CONSUME__STATE_DIR=str(tmp_path), INFERTOOL_BROKER__RECEIPT_TIMEOUT_S="3",
    )  # fmt: skip
    try:
        refused = ("refused to dead-letter", "no receipt for a move in time")
        wait(lambda: any(each in consumer.log.read_text() for each in refused), "the store is not full")
        assert drain(small, FILLER) > 0
        summary = consumer.finish(LONG)
    finally:
        consumer.kill()
    assert (summary["dead_lettered"], summary["handed_back"]) == (EVENTS, 0)
    assert drain(small, DEAD) == EVENTS
