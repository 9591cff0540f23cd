"""A dead-letter queue that is missing at RabbitMQ: events wait for it, and are neither tried nor reported again."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from infertool import brokers
from infertool.message import Outgoing
from tests.support.brokers import TIMEOUT_S, send_all, settings, take
from tests.support.running import CREDENTIALS, Running

EVENTS = 5


@pytest.mark.long
@pytest.mark.rabbitmq
def test_a_missing_dead_letter_queue(rabbitmq: Any, tmp_path: Path) -> None:
    queue = f"refusals.{uuid.uuid4().hex[:8]}"
    with rabbitmq.pika() as channel:
        channel.queue_declare(queue, durable=True)
    broker = brokers.open(settings(rabbitmq.amqp_url))
    broker.connect()
    send_all(broker, [Outgoing(queue, b"{}", headers={"event_id": f"e{n}"}) for n in range(EVENTS)])
    (tmp_path / "model.py").write_text("def predict(payload):\n    raise ValueError('no')\n")
    run = Running(
        tmp_path / "run", "consume", "--broker", rabbitmq.amqp_url, "--queue", queue, "--dlq", f"{queue}.dead",
        "--model", f"{tmp_path}/model.py:predict", "--publish", "stdout", "--log-format", "json",
        INFERTOOL_CONSUME__STATE_DIR=str(tmp_path / "state"), INFERTOOL_CONSUME__MAX_ATTEMPTS="1", **CREDENTIALS,
    )  # fmt: skip
    run.wait_for("the broker refused to dead-letter to", 4)
    with rabbitmq.pika() as channel:
        channel.queue_declare(f"{queue}.dead", durable=True)
    letters = take(broker.subscribe(f"{queue}.dead", window=EVENTS), EVENTS)
    run.terminate()
    output, _ = run.process.communicate(timeout=TIMEOUT_S)
    broker.close(TIMEOUT_S)
    assert {letter.headers["event_id"] for letter in letters} == {f"e{n}" for n in range(EVENTS)}
    reported = Counter(json.loads(line)["event_id"] for line in output.splitlines())
    assert reported == {f"e{n}": 1 for n in range(EVENTS)}, run.log.read_text()[-3000:]
