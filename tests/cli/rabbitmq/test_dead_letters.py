"""peek-dlq, replay-dlq and drain-dlq on RabbitMQ: its own dead letters, and queues that looks could harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.rabbitmq.conftest import Run
from tests.support.rawamqp import RawAmqp, eventually

pytestmark = pytest.mark.rabbitmq

QUORUM = {"x-queue-type": "quorum"}
BODIES = [b'{"event_id": "e%d"}' % number for number in range(3)]


@pytest.fixture
def died(raw: RawAmqp) -> Callable[..., tuple[str, str]]:
    """Fill a dead-letter queue with what RabbitMQ itself took off another one; return both names."""

    def died(arguments: dict[str, Any]) -> tuple[str, str]:
        dlq = raw.queue(arguments)
        origin = raw.queue({"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dlq})
        raw.send(origin, *BODIES, headers={"retries": 7}, content_type="application/json")
        with raw.channel() as channel:
            for _ in BODIES:
                method, _, _ = channel.basic_get(origin)
                channel.basic_reject(method.delivery_tag, requeue=False)
        eventually(lambda: raw.waiting(dlq) == len(BODIES))
        return origin, dlq

    return died


@pytest.mark.parametrize("arguments", [{}, QUORUM])
def test_what_rabbitmq_dead_lettered_is_shown_and_replayed_to_its_origin(
    raw: RawAmqp, run: Run, died: Callable[..., tuple[str, str]], arguments: dict[str, str]
) -> None:
    origin, dlq = died(arguments)
    done = run("peek-dlq", dlq)
    rows = done.stdout.splitlines()[1:]
    assert len(rows) == 3
    assert all(f"  {origin}  broker  " in row and row.endswith("Rejected: rejected by a consumer") for row in rows)
    assert all(row.startswith("20") for row in rows)
    assert "these are all, 3" in done.stderr
    assert ("counts as a delivery; this queue allows any number" in done.stderr) == (arguments == QUORUM)
    groups = run("peek-dlq", dlq, "--group-by", "stage,error_type,origin").stdout
    assert groups.splitlines()[1].split()[:4] == ["3", "broker", "Rejected", origin]
    assert "retries: 7 (int)" in run("peek-dlq", dlq, "--id", "e1").stdout
    assert "replayed 3; 0 of 3 remain" in run("replay-dlq", dlq, "--yes").stdout
    taken = raw.take(origin, 3)
    assert [body for _, _, body in taken] == BODIES
    for _, properties, _ in taken:
        assert properties.headers["retries"] == 7
        assert properties.headers["original_destination"] == origin
        assert not [name for name in properties.headers if "death" in name]
    assert raw.waiting(dlq) == 0


def test_a_quorum_queue_with_a_limit_is_left_alone_and_can_be_replayed(
    raw: RawAmqp, run: Run, died: Callable[..., tuple[str, str]]
) -> None:
    origin, dlq = died({**QUORUM, "x-delivery-limit": 4})
    for _ in range(6):
        done = run("peek-dlq", dlq, code=3)
        assert "this one allows 4; archive it with drain-dlq, or look all the same with peek-dlq --force" in done.stderr
    for looks in range(2):
        done = run("peek-dlq", dlq, "--force", "-o", "jsonl")
        counts = {json.loads(line)["headers"].get("x-delivery-count") for line in done.stdout.splitlines()}
        assert len(done.stdout.splitlines()) == 3, looks
        assert counts == {None}
    done = run("peek-dlq", dlq, "--force")
    assert "the last one shown came 3 times, so it ends there: do not look again" in done.stderr
    done = run("replay-dlq", dlq, "--yes")
    assert "no letters are shown beforehand" in done.stderr
    assert sorted(body for _, _, body in raw.take(origin, 3)) == BODIES


def test_a_quorum_queue_without_the_management_api_is_left_alone_and_can_be_drained(
    raw: RawAmqp, run: Run, died: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    _, dlq = died(QUORUM)
    done = run("peek-dlq", dlq, asked=False, code=3)
    assert "AMQP does not tell how many it allows; set broker.management_url" in done.stderr
    archive = tmp_path / "letters.jsonl"
    done = run("drain-dlq", dlq, "--to", str(archive), "--yes", asked=False)
    assert len(archive.read_text().splitlines()) == 3
    assert raw.waiting(dlq) == 0


def test_what_another_consumer_holds_is_said(raw: RawAmqp, run: Run, died: Callable[..., tuple[str, str]]) -> None:
    _, dlq = died({})
    with raw.channel() as channel:
        channel.basic_qos(prefetch_count=2)
        channel.basic_consume(dlq, lambda *_: None)
        channel.connection.process_data_events(0)
        eventually(lambda: raw.waiting(dlq) == 1)
        done = run("peek-dlq", dlq, asked=False)
        assert "what its consumer holds is not shown" in done.stderr
        assert "these are all" not in done.stderr
