"""`infertool rabbitmq declare`: what it shows, makes, and never changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.cli.rabbitmq.conftest import Run
from tests.support.rawamqp import RawAmqp
from tests.support.running import infertool

pytestmark = pytest.mark.rabbitmq


@pytest.fixture
def declare(run: Run) -> Callable[..., Any]:
    def declare(*options: str, **how: Any) -> CompletedProcess[str]:
        return run("rabbitmq", "declare", *options, **how)

    return declare


def table(done: Any) -> list[Any]:
    return [" ".join(line.split()) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("asked", [True, False])
def test_what_is_missing_is_made_with_yes_only(raw: RawAmqp, declare: Callable[..., Any], asked: bool) -> None:
    queue, dlq = raw.name(), raw.name()
    names = ("--queue", queue, "--dlq", dlq, "--type", "classic")
    plan = (*names, "--max-priority", "5", "--dead-letter-exchange", "amq.default", "--dead-letter-routing-key", dlq)
    done = declare(*plan, code=2, asked=asked)
    asked_for = f"type classic, max priority 5, dead letter exchange (default), dead letter routing key {dlq}"
    assert table(done) == [
        "queue state what",
        f"{queue} missing would be made: durable, {asked_for}",
        f"{dlq} missing would be made: durable, type classic",
    ]
    assert "add --yes to agree beforehand" in done.stderr
    assert declare(*plan, code=2, asked=asked).stdout == done.stdout
    assert f"made: {queue}, {dlq}" in declare(*plan, "--yes", asked=asked).stderr
    again = declare(*plan, "--yes", asked=asked)
    assert table(again)[1:] == [f"{queue} same -", f"{dlq} same -"]
    assert "made" not in again.stderr
    # The dead-letter queue of RabbitMQ's own is this one.
    raw.send(queue, b"1")
    with raw.channel() as channel:
        method, _, _ = channel.basic_get(queue)
        channel.basic_reject(method.delivery_tag, requeue=False)
    assert raw.take(dlq, 1)[0][2] == b"1"


@pytest.mark.parametrize("asked", [True, False])
def test_what_differs_is_one_line_each_and_stays(raw: RawAmqp, declare: Callable[..., Any], asked: bool) -> None:
    queue, dlq = raw.queue({"x-max-priority": 9}), raw.name()
    options = ("--queue", queue, "--dlq", dlq, "--type", "classic", "--max-priority", "5", "--yes")
    done = declare(*options, code=1, asked=asked)
    assert f"{queue} differs x-max-priority is 9, asked for is 5" in table(done)
    assert "1 of 2 queues are not as asked for; what exists is never changed" in done.stderr
    assert f"made: {dlq}" in done.stderr
    assert f"{dlq} same -" in table(declare(*options, code=1, asked=asked))


def test_the_type_of_what_exists_matters_only_if_it_is_asked_for(raw: RawAmqp, declare: Callable[..., Any]) -> None:
    classic, quorum = raw.queue(), raw.queue({"x-queue-type": "quorum"})
    done = declare("--queue", classic, "--dlq", quorum)
    assert table(done)[1:] == [f"{classic} same -", f"{quorum} same -"]
    done = declare("--queue", classic, "--dlq", quorum, "--type", "quorum", code=1)
    assert f"{classic} differs x-queue-type is classic, asked for is quorum" in table(done)


def test_json(raw: RawAmqp, declare: Callable[..., Any]) -> None:
    queue, dlq = raw.name(), raw.queue({"x-queue-type": "quorum", "x-delivery-limit": 3})
    options = ("--queue", queue, "--dlq", dlq, "-o", "json")
    planned = json.loads(declare(*options, code=2).stdout)["queues"]
    assert [(each["queue"], each["state"], each["created"]) for each in planned] == [
        (queue, "missing", False), (dlq, "same", False),
    ]  # fmt: skip
    assert planned[0]["asked"] == {"type": "quorum"}
    assert planned[1]["notes"] == ["it also has x-delivery-limit=3"]
    done = json.loads(declare(*options, "--yes").stdout)["queues"]
    assert [(each["state"], each["created"]) for each in done] == [("same", True), ("same", False)]
    done = declare("--queue", dlq, "--dlq", queue, "--delivery-limit", "5", "--type", "quorum", "-o", "json", code=1)
    assert json.loads(done.stdout)["queues"][0]["differences"] == [
        {"argument": "x-delivery-limit", "asked": "5", "found": "3"}
    ]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--max-priority", "5"), "needs a classic queue"),
        (("--delivery-limit", "5", "--type", "classic"), "needs a quorum queue"),
        (("--queue", "a", "--dlq", "a"), "both --queue and --dlq"),
        (("--type", "stream"), "stream"),
        (("--queue", "a,b"), "is no queue of RabbitMQ"),
    ],
)
def test_usage_errors(declare: Callable[..., Any], options: tuple[Any, ...], text: str) -> None:
    assert text in declare(*options, code=2).stderr


def test_other_brokers_have_nothing_to_declare() -> None:
    done = infertool("rabbitmq", "declare", "--broker", "stomp://127.0.0.1:1", "--yes")
    assert (done.returncode, "queues of stomp:// are not declared" in done.stderr) == (2, True)


def test_nothing_answers() -> None:
    done = infertool("rabbitmq", "declare", "--broker", "amqp://127.0.0.1:1", "--yes")
    assert (done.returncode, "nothing listens" in done.stderr) == (3, True)
