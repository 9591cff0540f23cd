"""Java's own Kafka clients as peers: a producer, with transactions and codecs, a consumer, a caller and a server."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

from tests.support import kafka, maven

# The end of a transaction, between records.
COMMIT, ABORT = "commit", "abort"
_HERE = Path(__file__).parent
_FIXTURES = _HERE.parents[1] / "fixtures" / "rpc"


@dataclass(frozen=True)
class Record:
    """A record of Kafka; `offset` is known of one that was consumed."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()
    partition: int | None = None
    timestamp: int | None = None
    offset: int | None = None

    def line(self) -> str:
        return json.dumps({
            "topic": self.topic, "value": _text(self.value), "key": _text(self.key), "partition": self.partition,
            "timestamp": self.timestamp, "headers": [[name, _text(value)] for name, value in self.headers],
        })  # fmt: skip


def produce(address: str, records: Iterable[Record | str], properties: Mapping[str, str] | None = None) -> None:
    """Send `records` in order, acknowledged by all replicas.

    With a `transactional.id` in `properties`, COMMIT and ABORT stand between records. It takes a JVM a second to start:
    send many at once.
    """
    lines = (record.line() if isinstance(record, Record) else json.dumps({"end": record}) for record in records)
    _java("KafkaProduce", _properties(address, properties), given="".join(f"{line}\n" for line in lines))


def consume(address: str, topic: str, count: int, properties: Mapping[str, str] | None = None) -> list[Record]:
    """Take at least `count` records from the first one on; commit them where `properties` name a `group.id`."""
    group = {"group.id": f"java-consumer-{topic}", "auto.offset.reset": "earliest", **(properties or {})}
    said = _java("KafkaConsume", _properties(address, group), topic, str(count))
    return [_record(json.loads(line)) for line in said.splitlines()]


def call(address: str, topic: str, replies: str, body: str) -> str:
    """Call a server as Spring's ReplyingKafkaTemplate does; return the reply's status and body."""
    return _ended(_started(_FIXTURES / "CallOverKafka.java", address, topic, replies, body)).rstrip()


@contextmanager
def answering(address: str, topic: str, count: int) -> Iterator[list[bytes]]:
    """Have a server answer so many requests as a listener of Spring does, with {"echo": REQUEST}.

    The list has the correlation ids of the requests once the server has ended, with the block.
    """
    group = {"group.id": f"java-server-{topic}", "auto.offset.reset": "earliest"}
    running = _started(_HERE / "KafkaAnswer.java", _properties(address, group), topic, str(count))
    correlations: list[bytes] = []
    try:
        yield correlations
        correlations += map(bytes.fromhex, _ended(running).split())
    finally:
        running.kill()
        running.wait()


def _record(shown: dict[str, Any]) -> Record:
    headers = [(name, _bytes(value)) for name, value in shown["headers"]]
    return Record(**{**shown, "key": _bytes(shown["key"]), "value": _bytes(shown["value"]), "headers": headers})


def _java(name: str, *arguments: str, given: str = "") -> str:
    return _ended(_started(_HERE / f"{name}.java", *arguments), given)


def _started(source: Path, *arguments: str) -> Popen[str]:
    classes = maven.compiled(source, kafka.home())
    command = [*kafka.java(), "-cp", kafka.class_path(classes), source.stem, *arguments]
    return Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True)


def _ended(running: Popen[str], given: str = "") -> str:
    """Return what a program printed, after its end."""
    said, complained = running.communicate(given, timeout=240)
    assert running.returncode == 0, complained[-3000:]
    return said


def _properties(address: str, more: Mapping[str, str] | None) -> str:
    known = {"bootstrap.servers": address, **(more or {})}
    return "".join(f"{name}={value}\n" for name, value in known.items())


def _text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _bytes(value: str | None) -> bytes | None:
    return None if value is None else base64.b64decode(value)
