"""A broker that loses its disk: the log begins anew, and its events have the offsets of others that were done."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from tests.support import kafka as servers
from tests.support.kafkamember import TestClients, bodies, eventually, member
from tests.support.rawkafka import RawKafka

pytestmark = [pytest.mark.kafka, pytest.mark.long]


def _numbered(count: int, prefix: bytes) -> list[bytes]:
    return [b"%s%d" % (prefix, number) for number in range(count)]


def is_committed(raw: RawKafka, topic: str, offset: int) -> bool:
    found = raw.committed(topic, topic).get(0)
    return found is not None and found.offset == offset


def test_all_of_a_log_that_grew_beyond_the_commit_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is done lies beyond an open event, before one, or both; the fourth was read by a consumer that goes on."""
    done = {"beyond": range(1, 100), "before": range(60), "both": range(0, 100, 2), "live": range(100)}
    new = _numbered(150, b"new")
    with servers.running(tmp_path / "own") as server:
        raw, clients = RawKafka(server.client()), TestClients(server.address())
        for topic, offsets in done.items():
            raw.topic(name=topic)
            raw.send(topic, *_numbered(100, b"old"))
            if topic != "live":
                with member(clients, topic) as first:
                    taken = first.take(100)
                    first.ack(*(taken[offset] for offset in offsets))
        with caplog.at_level(logging.WARNING), member(clients, "live") as live:
            live.ack(*live.take(100))
            eventually(lambda: is_committed(raw, "live", 100))
            server.stop()
            for topic in done:
                shutil.rmtree(server.base / "data" / f"{topic}-0")
            server.start()
            raw = RawKafka(server.client())
            for topic in done:
                eventually(lambda topic=topic: raw.watermarks(topic) == {0: (0, 0)})  # type: ignore[misc]
                raw.send(topic, *new)
            assert bodies(live.take(150)) == new
            for topic in [*done][:3]:
                with member(clients, topic) as second:
                    taken = second.take(150)
                    assert bodies(taken) == new
                    second.ack(*taken)
                assert is_committed(raw, topic, 150)
        raw.close()
    for topic in done:
        assert f"the log of {topic}/0 is not the one that was read" in caplog.text
