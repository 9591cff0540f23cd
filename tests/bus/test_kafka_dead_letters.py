"""Dead letters on Kafka, as a person on call handles them: looked at, replayed, copied, moved elsewhere, drained."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from confluent_kafka import Consumer, Message

from tests.support.kafka import Kafka
from tests.support.rabbitmq import RabbitMQ
from tests.support.rawkafka import RawKafka, eventually, headers_of
from tests.support.running import CREDENTIALS, infertool

pytestmark = [pytest.mark.kafka, pytest.mark.long]

MODEL = """
def predict(event):
    raise ValueError(f"{event['kind']} cannot be used")
"""
Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def topic(raw_kafka: RawKafka) -> str:
    name = raw_kafka.topic(2)
    raw_kafka.topic(1, name=f"{name}.dlq")
    return name


@pytest.fixture
def run(kafka: Kafka, topic: str, tmp_path: Path) -> Run:
    """Run a command of infertool on the topic; it must succeed."""
    (tmp_path / "model.py").write_text(MODEL)

    def run(command: str, *options: str, broker: str = "", **env: str) -> CompletedProcess[str]:
        own = {"INFERTOOL_CONSUME__STATE_DIR": str(tmp_path / "state"), **env}
        done = infertool(command, "--broker", broker or kafka.topic_url(topic, group=topic), *options, **own)
        assert done.returncode == 0, done.stderr
        return done

    return run


def die(run: Run, tmp_path: Path, *options: str, broker: str = "", **env: str) -> dict[str, Any]:
    """Have a consumer fail on all that waits."""
    done = run(
        "consume", "--model", f"{tmp_path}/model.py:predict", "--publish", "none", "--max-attempts", "1",
        "--exit-when-idle", "1s", "-o", "json", *options, broker=broker, **env,
    )  # fmt: skip
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary


def producers(record: Message) -> list[tuple[str, bytes | None]]:
    """Return the headers that are not ours, in their order."""
    ours = ("original_", "replay_", "infertool_")
    return [(name, value) for name, value in headers_of(record) if not name.startswith(ours)]


def letters(run: Run) -> list[dict[str, Any]]:
    shown = infertool_json(run("peek-dlq", "-o", "json").stdout)
    return list(shown["letters"])


def infertool_json(text: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(text)
    return document


ODD: Sequence[tuple[bytes | None, bytes | None, Sequence[tuple[str, bytes | None]]]] = [
    (b"customer-1", b'{"kind":"plain"}', [("tenant", b"a")]),
    (b"\xff\x00key", b'{"kind":"bytes"}', [("raw", b"\xfe\xff"), ("nothing", None)]),
    (None, b'{"kind":"twice"}', [("b", b"1"), ("a", b"2"), ("b", b"3")]),
    (b"", b'{"kind":"empty key"}', []),
    (b"gone", None, [("tenant", b"a")]),
    (b"no json", b"\x80\x81", []),
]


def test_what_a_record_has_survives_its_death_and_its_replay(
    run: Run, raw_kafka: RawKafka, topic: str, tmp_path: Path
) -> None:
    for key, value, headers in ODD:
        raw_kafka.send(topic, value, key=key, headers=headers)
    assert die(run, tmp_path)["dead_lettered"] == len(ODD)
    assert len(letters(run)) == len(ODD)
    run("replay-dlq", "--yes")
    replayed = [record for record in raw_kafka.all(topic) if "replay_id" in dict(headers_of(record))]
    found = {record.key(): (record.value(), producers(record)) for record in replayed}
    assert found == {key: (value, list(headers)) for key, value, headers in ODD}


def test_runs_go_on_where_the_last_one_ended_and_the_topic_keeps_its_records(
    run: Run, raw_kafka: RawKafka, topic: str, tmp_path: Path
) -> None:
    kinds = ["odd", "even"] * 5
    raw_kafka.send(topic, *(b'{"kind":"%b","n":%d}' % (kind.encode(), n) for n, kind in enumerate(kinds)))
    assert die(run, tmp_path)["dead_lettered"] == 10
    done = run("replay-dlq", "--where", "kind == 'odd'", "--yes")
    assert "replayed 5, 5 not matching; 5 of 10 remain" in done.stdout
    assert f"the group {topic}.replay remembers which are settled" in done.stderr
    assert {letter["payload"]["kind"] for letter in letters(run)} == {"even"}
    assert "copied 2" in run("replay-dlq", "--copy", "--limit", "2", "--yes").stdout
    assert len(letters(run)) == 5
    assert "replayed 2" in run("replay-dlq", "--limit", "2", "--yes").stdout
    assert len(letters(run)) == 3
    # What was left out is settled by the run that takes it, whatever is settled behind it.
    archive = tmp_path / "dead.jsonl"
    drained = run("drain-dlq", "--to", str(archive), "--yes")
    assert "archived 3" in drained.stdout
    assert len(raw_kafka.all(f"{topic}.dlq")) == 10
    assert "deleted 10 records" in run("drain-dlq", "--to", str(archive), "--yes", "--delete-records").stderr
    assert raw_kafka.all(f"{topic}.dlq") == []


@pytest.mark.parametrize(
    "there",
    [pytest.param("activemq", marks=pytest.mark.activemq), pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)],
)
def test_letters_go_to_another_broker_and_come_back(
    run: Run, raw_kafka: RawKafka, kafka: Kafka, topic: str, tmp_path: Path, request: pytest.FixtureRequest, there: str
) -> None:
    key, value, headers = ODD[0]
    raw_kafka.send(topic, value, key=key, headers=headers)
    die(run, tmp_path)
    server = request.getfixturevalue(there)
    url = server.amqp_url if isinstance(server, RabbitMQ) else server.url
    other = {**CREDENTIALS, "INFERTOOL_BROKER__DECLARE": "true"}
    login = {"INFERTOOL_TO_BROKER__USER": "admin", "INFERTOOL_TO_BROKER__PASSWORD": "admin"}
    moved = run("replay-dlq", "--to-broker", url, "--yes", **login, INFERTOOL_BROKER__DECLARE="true")
    assert "replayed 1; 0 of 1 remain" in moved.stdout
    place = {"broker": url, **other}
    die(run, tmp_path, "--queue", topic, "--dlq", f"{topic}.dead", **place)
    # The login is that of the other broker, unless to_broker has its own.
    back = f"kafka://{kafka.address('SASL_PLAINTEXT')}"
    run("replay-dlq", f"{topic}.dead", "--to-broker", back, "--yes", **place)
    record = raw_kafka.all(topic)[-1]
    assert len(raw_kafka.all(topic)) == 2
    # Over AMQP each message gets an id.
    carried = [(name, value) for name, value in producers(record) if name != "message-id"]
    assert (record.key(), record.value(), carried) == (key, value, list(headers))


def test_a_filter_and_a_copy_reach_letters_behind_many_that_stay(run: Run, raw_kafka: RawKafka, topic: str) -> None:
    """More stay than a run may have unsettled."""
    count = 2500
    raw_kafka.topic(1, name=f"{topic}.copies")
    raw_kafka.send(
        f"{topic}.dlq", *(b'{"n":%d}' % n for n in range(count)), headers=[("original_destination", topic.encode())]
    )
    to = ("--to", f"{topic}.copies", "--yes", "-o", "json")
    found = infertool_json(run("replay-dlq", "--where", f"n == {count - 1}", *to).stdout)
    assert (found["replayed"], found["ended"]) == (1, "end")
    [last] = raw_kafka.all(f"{topic}.copies")
    assert last.value() == b'{"n":%d}' % (count - 1)
    copied = infertool_json(run("replay-dlq", "--copy", *to).stdout)
    assert (copied["replayed"], copied["ended"]) == (count - 1, "end")
    assert len({each.value() for each in raw_kafka.all(f"{topic}.copies")}) == count


@pytest.fixture
def killed(raw_kafka: RawKafka) -> Callable[[str, str], None]:
    """Have a group wait for a member that ended without a word."""

    def kill(group: str, topic: str) -> None:
        # A static member does not say goodbye.
        member = Consumer({
            **raw_kafka.config, "group.id": group, "group.instance.id": "killed", "session.timeout.ms": 15_000,
            "partition.assignment.strategy": "cooperative-sticky",
        })  # fmt: skip
        member.subscribe([topic])
        eventually(lambda: member.poll(0.1) or member.assignment())
        member.close()

    return kill


# Seconds, far less than the group waits.
SOON = {"INFERTOOL_BROKER__RECEIPT_TIMEOUT_S": "1"}


def test_a_run_after_one_that_was_killed_waits_for_its_partitions(
    run: Run, raw_kafka: RawKafka, topic: str, killed: Callable[[str, str], None]
) -> None:
    raw_kafka.send(f"{topic}.dlq", *(b'{"n":%d}' % n for n in range(5)), headers=[("original_destination", b"x")])
    killed(f"{topic}.replay", f"{topic}.dlq")
    done = run("replay-dlq", "--to", topic, "--force", "--yes", "-o", "json", **SOON)
    assert infertool_json(done.stdout)["replayed"] == 5
    assert f"the group {topic}.replay has not yet given partitions of {topic}.dlq" in done.stderr


@pytest.mark.parametrize("also", ["", ".low"], ids=["one topic", "two"])
def test_a_consumer_is_not_idle_before_its_group_gave_it_partitions(
    run: Run, raw_kafka: RawKafka, topic: str, tmp_path: Path, killed: Callable[[str, str], None], also: str
) -> None:
    raw_kafka.topic(1, name=f"{topic}.low")
    raw_kafka.send(topic, b'{"kind":"waits"}')
    killed(topic, topic)
    weights = {"INFERTOOL_BROKER__QUEUE": f"{topic}=2,{topic}.low=1", "INFERTOOL_DEADLETTER__QUEUE": f"{topic}.dlq"}
    broker = f"kafka://{raw_kafka.config['bootstrap.servers']}?group={topic}" if also else ""
    assert die(run, tmp_path, broker=broker, **SOON, **(weights if also else {}))["dead_lettered"] == 1
