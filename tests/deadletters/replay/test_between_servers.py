"""`replay-dlq --to-broker` between real servers, there and back; and whose login it uses."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infertool import brokers
from infertool.brokers.port import Broker, Move
from infertool.deadletters import marks
from infertool.deadletters.archive import records
from infertool.deadletters.record import Cause, dead_letter
from infertool.message import BodyKind, Message, Outgoing, Properties
from tests.support.activemq import ActiveMQ
from tests.support.brokers import TIMEOUT_S, send_all, settings, take
from tests.support.rabbitmq import RabbitMQ
from tests.support.running import CREDENTIALS, Running, infertool

COUNT = 30
HIDDEN = "hunter2-hidden"
CAUSE = Cause("e", "", "infer", "E", "no", 1, "2026-01-01T00:00:01.000Z", "2026-01-01T00:00:00.000Z", "c", "m")
HEADERS = {"tenant": "acme:1", "umlaut": "ü\n", "empty": "", "replay_count": "7", "dlq_error": "theirs"}
KNOWN = Properties(
    correlation_id="c:1", content_type="application/json", content_encoding="identity", message_id="theirs",
    type="order", priority=7, reply_to="/queue/answers",
)  # fmt: skip


@dataclass
class Place:
    """A queue of events and its dead letters, on one server."""

    broker: Broker
    url: str
    queue: str

    @property
    def dead(self) -> str:
        return f"{self.queue}.dead"

    def die(self, count: int) -> list[Message]:
        """Have the next events fail, as a consumer does; return them."""
        broker = brokers.open(settings(self.url))
        broker.connect()
        subscription = broker.subscribe(self.queue, window=count)
        events = take(subscription, count)
        atomic = broker.capabilities.atomic_move
        letters = [dead_letter(each, CAUSE, self.dead, broker.conventions, atomic=atomic) for each in events]
        subscription.move([Move(each, sent) for each, sent in zip(events, letters, strict=True)], TIMEOUT_S)
        broker.close(TIMEOUT_S)
        return events


def place(server: Any, connect: Callable[..., Broker], name: str) -> Place:
    return Place(connect(server.url), server.url, f"/queue/{name}")


def replay(source: Place, target: Place | str, *options: str, code: int = 0, **env: str) -> dict[str, Any]:
    to = target if isinstance(target, str) else target.url
    done = infertool(
        "replay-dlq", source.dead, "--broker", source.url, "--to-broker", to, "--yes", "-o", "json", *options,
        **CREDENTIALS, **env,
    )  # fmt: skip
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert HIDDEN not in done.stdout + done.stderr
    return {**(json.loads(done.stdout) if done.stdout.strip() else {}), "said": done.stderr}


def events(queue: str) -> list[Outgoing]:
    return [
        Outgoing(
            queue, b'{"n": %d}' % n, BodyKind.BYTES if n % 2 else BodyKind.TEXT, {**HEADERS, "event_id": f"e{n}"}, KNOWN
        )
        for n in range(COUNT)
    ]


def content(message: Message) -> tuple[Any, ...]:
    """Return what must survive."""
    known = message.properties
    headers = marks.producers(message.headers)
    mine = {name: headers.get(name) for name in (*HEADERS, "event_id")}
    properties = tuple(getattr(known, name) for name in KNOWN.__struct_fields__ if not name.endswith("_ms"))
    return message.body, message.kind, mine, properties


@pytest.mark.activemq
@pytest.mark.rabbitmq
def test_from_activemq_to_rabbitmq_and_back(activemq: ActiveMQ, rabbitmq: RabbitMQ, connect: Any) -> None:
    name = f"between.{uuid.uuid4().hex[:8]}"
    here, there = place(activemq, connect, name), place(rabbitmq, connect, name)
    send_all(here.broker, events(here.queue))
    first = here.die(COUNT)
    moved = replay(here, there, "--batch", "7")
    assert moved["targets"] == {there.queue: COUNT}
    assert moved["losses"] == {"the priority: not every queue there keeps it": COUNT}
    assert "at least once" in moved["said"]
    # It fails there, too, and goes back.
    second = there.die(COUNT)
    assert [content(each) for each in second] == [content(each) for each in first]
    back = replay(there, here, "--force")
    assert (back["targets"], back["losses"]) == ({here.queue: COUNT}, {})
    third = take(here.broker.subscribe(here.queue, window=COUNT), COUNT)
    assert sorted(map(content, third), key=str) == sorted(map(content, first), key=str)
    own = [marks.ours(each.headers) for each in third]
    assert {each["original_message_id"] for each in own} == {each.id for each in first}
    assert {(each["replay_count"], each["original_destination"]) for each in own} == {("2", here.queue)}
    assert len({each["replay_id"] for each in own}) == COUNT
    for at in (here, there):
        assert at.broker.subscribe(at.dead, window=10).receive(1, 0.5) == []


KILLED_COUNT, KILLS = 300, 6


@pytest.mark.long
@pytest.mark.activemq
@pytest.mark.rabbitmq
def test_killed_between_the_confirmation_there_and_the_ack_here(
    activemq: ActiveMQ, rabbitmq: RabbitMQ, connect: Any, tmp_path: Path
) -> None:
    """At whatever instant: each letter is there in the end, and what is there twice has one id."""
    name = f"between.{uuid.uuid4().hex[:8]}"
    here, there = place(activemq, connect, name), place(rabbitmq, connect, name)
    send_all(here.broker, [Outgoing(here.queue, b"{}", headers={"event_id": f"e{n}"}) for n in range(KILLED_COUNT)])
    for _ in range(KILLED_COUNT // 100):
        here.die(100)
    arrived = there.broker.subscribe(there.queue, window=1000)
    rng, sent = random.Random(7), list[Message]()
    command = (
        "replay-dlq",
        here.dead,
        "--broker",
        here.url,
        "--to-broker",
        there.url,
        "--yes",
        "-o",
        "json",
        "--batch",
        "5",
    )
    for number in range(KILLS):
        run = Running(tmp_path / str(number), *command, **CREDENTIALS)
        sent += take(arrived, rng.randrange(1, 40))
        run.kill()
    last = Running(tmp_path / "last", *command, **CREDENTIALS)
    last.finish()
    deadline = time.monotonic() + TIMEOUT_S
    while len({each.headers["event_id"] for each in sent}) < KILLED_COUNT and time.monotonic() < deadline:
        sent += arrived.receive(1000, 1.0)
    while more := arrived.receive(1000, 1.0):
        sent += more
    ids = {each.headers["event_id"]: set[str]() for each in sent}
    for each in sent:
        ids[each.headers["event_id"]].add(each.headers["replay_id"])
    assert ids.keys() == {f"e{n}" for n in range(KILLED_COUNT)}
    assert {len(of_one) for of_one in ids.values()} == {1}
    assert len(set.union(*ids.values())) == KILLED_COUNT
    assert here.broker.subscribe(here.dead, window=10).receive(1, 0.5) == []


@pytest.mark.rabbitmq
def test_a_lifetime_over_stomp_to_rabbitmq(rabbitmq: RabbitMQ, connect: Any) -> None:
    there = place(rabbitmq, connect, f"between.{uuid.uuid4().hex[:8]}")
    send_all(there.broker, [Outgoing(there.queue, b"{}", properties=Properties(ttl_ms=3_600_000, priority=200))])
    [event] = there.die(1)
    assert (event.properties.ttl_ms, event.properties.priority) == (3_600_000, 9)
    [dead] = take(there.broker.subscribe(there.dead, window=1), 1)
    assert (dead.properties.ttl_ms, dead.properties.expires_ms) == (None, None)
    assert marks.ours(dead.headers)["original_ttl"] == "3600000"


@pytest.mark.activemq
@pytest.mark.rabbitmq
def test_an_archive_of_activemq_is_sent_to_rabbitmq(
    activemq: ActiveMQ, rabbitmq: RabbitMQ, connect: Any, tmp_path: Path
) -> None:
    name = f"between.{uuid.uuid4().hex[:8]}"
    here, there = place(activemq, connect, name), place(rabbitmq, connect, name)
    send_all(here.broker, events(here.queue))
    first = here.die(COUNT)
    file = str(tmp_path / "dead.jsonl.gz")
    done = infertool("drain-dlq", here.dead, "--broker", here.url, "--to", file, "--yes", **CREDENTIALS)
    assert done.returncode == 0, done.stderr
    assert sum(len(batch.messages) for batch in records.read(Path(file))) == COUNT
    looked = replay(here, there, "--from", file, "--dry-run")
    assert (looked["matching"], looked["targets"]) == (COUNT, {there.queue: COUNT})
    assert replay(here, there, "--from", file)["targets"] == {there.queue: COUNT}
    second = take(there.broker.subscribe(there.queue, window=COUNT), COUNT)
    assert [content(each) for each in second] == [content(each) for each in first]


@pytest.fixture
def one_letter(activemq: ActiveMQ, rabbitmq: RabbitMQ, connect: Any) -> tuple[Place, Place]:
    name = f"between.{uuid.uuid4().hex[:8]}"
    here, there = place(activemq, connect, name), place(rabbitmq, connect, name)
    send_all(here.broker, events(here.queue)[:1])
    here.die(1)
    return here, there


@pytest.mark.activemq
@pytest.mark.rabbitmq
def test_a_profile_names_the_other_broker_and_its_login(one_letter: tuple[Place, Place], tmp_path: Path) -> None:
    here, there = one_letter
    secret = tmp_path / "secret"
    secret.write_text("admin\n")
    config = tmp_path / "infertool.toml"
    config.write_text(
        f'[broker]\npassword = "{HIDDEN}"\n[profile.rabbit.broker]\nurl = "{there.url}"\nuser = "admin"\n'
        f'password_file = "{secret}"\n'
    )
    options = ("--config", str(config))
    looked = replay(here, "rabbit", *options, "--dry-run")
    assert (looked["matching"], looked["targets"]) == (1, {there.queue: 1})
    assert "no profile" not in looked["said"]
    refused = replay(here, "rabbi", *options, code=2)
    assert "--to-broker 'rabbi' is neither a URL nor a profile" in refused["said"]
    assert "rabbit" in refused["said"]
    assert replay(here, "rabbit", *options)["replayed"] == 1
    assert len(take(there.broker.subscribe(there.queue, window=1), 1)) == 1


@pytest.mark.activemq
@pytest.mark.rabbitmq
def test_the_login_of_the_other_broker_is_its_own(one_letter: tuple[Place, Place], tmp_path: Path) -> None:
    here, there = one_letter
    wrong: dict[str, Any] = {"INFERTOOL_TO_BROKER__USER": "admin", "INFERTOOL_TO_BROKER__PASSWORD": HIDDEN}
    refused = replay(here, there, code=3, **wrong)
    assert there.url.removeprefix("stomp://") in refused["said"]
    secret = tmp_path / "secret"
    secret.write_text("admin\n")
    right: dict[str, Any] = {"INFERTOOL_TO_BROKER__USER": "admin", "INFERTOOL_TO_BROKER__PASSWORD_FILE": str(secret)}
    assert replay(here, there, **right)["replayed"] == 1


def test_what_fails_on_another_broker_is_not_seen_here() -> None:
    done = infertool("replay-dlq", "--to-broker", "stomp://localhost:1", "--abort-on-refail", "1", "--yes")
    assert done.returncode == 2
    assert "--abort-on-refail sees only what fails on this broker" in done.stderr


def test_what_is_typed_for_a_url_is_not_shown() -> None:
    done = infertool("replay-dlq", "--to-broker", f"admin:{HIDDEN}@localhost:1", "--yes")
    assert done.returncode == 2
    assert "'localhost:1' is neither a URL nor a profile" in done.stderr
    assert HIDDEN not in done.stdout + done.stderr
