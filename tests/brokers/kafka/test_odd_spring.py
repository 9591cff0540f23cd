"""Calls between infertool and Java programs that speak as Spring's ReplyingKafkaTemplate does, over a real Kafka."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infertool import rpc
from infertool.settings.broker import BrokerSettings
from tests.support import kafkapeers
from tests.support.kafka import Kafka
from tests.support.rawkafka import RawKafka
from tests.support.running import Running, infertool

pytestmark = [pytest.mark.kafka, pytest.mark.long]

_SERVICE = Path(__file__).parents[3] / "fixtures" / "rpc" / "service.py"
_S = 120.0


def test_java_calls_a_model(kafka: Kafka, raw_kafka: RawKafka, tmp_path: Path) -> None:
    topic, replies = raw_kafka.topic(2), raw_kafka.topic(2)
    raw_kafka.topic(1, name=f"{topic}.dlq")
    server = Running(
        tmp_path, "consume", "--broker", kafka.topic_url(topic, group=topic), "--model", f"{_SERVICE}:handle",
        "--reply", "--max-attempts", "1", "-o", "json", INFERTOOL_CONSUME__STATE_DIR=str(tmp_path / "state"),
    )  # fmt: skip
    try:
        server.wait_for("broker connected")
        assert kafkapeers.call(kafka.address(), topic, replies, '{"numbers": [1, 2, 3]}') == 'SUCCESS {"sum":6}'
        failed = kafkapeers.call(kafka.address(), topic, replies, '{"numbers": 1}')
        status, _, body = failed.partition(" ")
        assert (status, json.loads(body)["status"]) == ("FAILED", "FAILED")
        server.terminate()
        server.finish()
    finally:
        server.kill()


def test_a_java_server_answers_our_calls(kafka: Kafka, raw_kafka: RawKafka) -> None:
    topic, replies = raw_kafka.topic(2), raw_kafka.topic(3)
    with kafkapeers.answering(kafka.address(), topic, 21) as correlations:
        settings = BrokerSettings(url=kafka.url, reply_topic=replies, receipt_timeout_s=60.0)
        with rpc.Client(settings) as client:
            calls = [client.call_nowait(topic, {"number": number}, timeout_s=_S) for number in range(20)]
            assert [call.result().value for call in calls] == [{"echo": {"number": number}} for number in range(20)]
        done = infertool(
            "call", topic, '{"number": 20}', "--broker", kafka.url, "--timeout", "120s", "-o", "json",
            INFERTOOL_BROKER__REPLY_TOPIC=replies,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert '"number":20' in done.stdout.replace(" ", "")
    assert len(set(correlations)) == 21
