"""Offsets without messages, commits beyond the end of a log, and times that cannot be: what is read, shown, counted."""

from __future__ import annotations

import logging
import time

import pytest

from infertool.brokers.kafka.metadata import encode
from tests.brokers.kafka.conftest import OpenBroker
from tests.support.kafka import Kafka
from tests.support.kafkamember import TestClients, bodies, eventually, member
from tests.support.rawkafka import RawKafka

pytestmark = pytest.mark.kafka

_S = 120.0


def test_a_compacted_topic_is_settled_shown_and_measured_by_what_is_left(
    kafka: Kafka, open_kafka: OpenBroker, raw_kafka: RawKafka
) -> None:
    topic = raw_kafka.topic(1, cleanup_policy="compact", segment_ms=100, min_cleanable_dirty_ratio=0.01)
    for version in (b"old", b"new"):
        for number in range(6):
            raw_kafka.send(topic, version + b"%d" % number, key=b"%d" % number)
    clients = TestClients(kafka.address())
    with member(clients, topic) as first:
        # In work at the end: the first four old ones, which go, and two new ones.
        taken = first.take(12)
        first.ack(*taken[4:10])
    rolled: list[bytes] = []

    def compacted() -> bool:
        # What is written last is in the open segment, which is not compacted.
        rolled.append(b"roll%d" % len(rolled))
        raw_kafka.send(topic, rolled[-1], key=rolled[-1])
        return raw_kafka.all(topic)[0].offset() == 6

    eventually(compacted)
    left = [b"new4", b"new5", *rolled]
    broker = open_kafka(kafka.topic_url(topic, group=topic))
    shown = broker.browse(topic, limit=1000, timeout_s=_S)
    assert ([message.body for message in shown.messages], shown.complete, shown.depth) == (left, True, len(left))
    depth, lag = broker.measure(topic, _S), broker.lag(topic, _S)
    assert depth is not None
    assert lag is not None
    # Offsets of messages that are gone count no more, nor as lost ones.
    assert (depth.size, lag.messages, lag.lost) == (len(left), len(left), 0)
    with member(clients, topic) as second:
        again = second.take(len(left))
        assert bodies(again) == left
        second.ack(*again)
    assert raw_kafka.committed(topic, topic)[0].offset == 12 + len(rolled)
    depth = broker.measure(topic, _S)
    assert depth is not None
    assert depth.size == 0


def test_a_commit_beyond_the_end_is_that_of_another_log(
    kafka: Kafka, open_kafka: OpenBroker, raw_kafka: RawKafka, caplog: pytest.LogCaptureFixture
) -> None:
    """The topic was made anew, or an unclean election cut it: it is read, shown and counted from its beginning."""
    topic = raw_kafka.topic(1)
    raw_kafka.send(topic, b"0", b"1", b"2")
    raw_kafka.commit(topic, topic, 0, 50, encode([range(60, 70)], 70))
    broker = open_kafka(kafka.topic_url(topic, group=topic))
    lag = broker.lag(topic, _S)
    assert lag is not None
    assert (lag.messages, lag.lost, lag.gap) == (3, 0, 0)
    assert [message.body for message in broker.browse(topic, limit=9, timeout_s=_S).messages] == [b"0", b"1", b"2"]
    with caplog.at_level(logging.WARNING), member(TestClients(kafka.address()), topic) as only:
        taken = only.take(3)
        assert bodies(taken) == [b"0", b"1", b"2"]
        only.ack(*taken)
        eventually(lambda: raw_kafka.committed(topic, topic)[0].offset == 3)
    assert f"the log of {topic}/0 is not the one that was read up to offset 70" in caplog.text


def test_what_a_commit_calls_done_beyond_the_end_was_in_another_log(
    kafka: Kafka, open_kafka: OpenBroker, raw_kafka: RawKafka, caplog: pytest.LogCaptureFixture
) -> None:
    """A log that was cut behind the offset of the commit: what comes after is read, too."""
    topic = raw_kafka.topic(1)
    numbers = [b"%d" % number for number in range(60)]
    raw_kafka.send(topic, *numbers[:20])
    raw_kafka.commit(topic, topic, 0, 10, encode([range(11, 50)], 50))
    lag = open_kafka(kafka.topic_url(topic, group=topic)).lag(topic, _S)
    assert lag is not None
    assert (lag.messages, lag.gap) == (20, 0)
    with caplog.at_level(logging.WARNING), member(TestClients(kafka.address()), topic) as only:
        seen = only.take(1)
        # The beginning, once that was noticed.
        while bodies(seen[-1:]) != [b"0"]:
            seen += only.take(1)
        seen += only.take(19)
        raw_kafka.send(topic, *numbers[20:])
        seen += only.take(40)
        assert bodies(seen)[-60:] == numbers
        only.ack(*seen[-60:])
        eventually(lambda: raw_kafka.committed(topic, topic)[0].offset == 60)
    assert f"the log of {topic}/0 is not the one that was read up to offset 50" in caplog.text


def test_times_that_cannot_be_make_no_ages_that_cannot_be(
    kafka: Kafka, open_kafka: OpenBroker, raw_kafka: RawKafka
) -> None:
    topic = raw_kafka.topic(1, retention_ms=-1)
    later_ms = time.time_ns() // 1_000_000 + 1_800_000
    # A producer without a time sends -1; its own clock may be ahead, by an hour at most unless the topic allows more.
    raw_kafka.send(topic, b"none", timestamp=-1)
    raw_kafka.send(topic, b"ahead", timestamp=later_ms)
    broker = open_kafka(kafka.topic_url(topic, group=topic))
    none, ahead = broker.browse(topic, limit=2, timeout_s=_S).messages
    assert (none.properties.timestamp_ms, ahead.properties.timestamp_ms) == (None, later_ms)
    lag = broker.lag(topic, _S)
    assert lag is not None
    assert (lag.messages, lag.seconds, broker.oldest_sent_ms(topic, _S)) == (2, None, None)
    raw_kafka.commit(topic, topic, 0, 1)
    lag = broker.lag(topic, _S)
    assert lag is not None
    assert (lag.messages, lag.seconds, broker.oldest_sent_ms(topic, _S)) == (1, 0.0, later_ms)
