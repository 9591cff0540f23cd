"""A letter is its queue, its id and its content: an id alone tells neither an archive, a journal nor a restore."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest

from infertool.deadletters.archive import records
from infertool.deadletters.archive.writer import ArchiveWriter
from infertool.deadletters.letters import key
from infertool.message import BodyKind, Message
from tests.deadletters.archive.conftest import DeadQueue
from tests.support.messages import text_message

SUFFIXES = ["jsonl", "jsonl.gz", "jsonl.zst"]


def message(
    body: bytes = b"{}",
    *,
    queue: str = "/queue/x",
    message_id: str = "ID:1",
    kind: BodyKind = BodyKind.TEXT,
    redelivered: bool = False,
    given: Mapping[str, str] | None = None,
    **headers: str,
) -> Message:
    named = {"message-id": message_id, "destination": queue, "ack": uuid.uuid4().hex, **headers, **(given or {})}
    return text_message(message_id, queue, named, body, kind, redelivered, 1, named["ack"])


OTHERS = [
    message(queue="/queue/y"),
    message(message_id="ID:2"),
    message(b"[]"),
    message(kind=BodyKind.BYTES),
    message(tenant="a"),
    message(tenant="b"),
    message(tenanta=""),
    message(timestamp="1"),
    message(tenant="\udcff"),
]


def test_what_differs_is_another_letter() -> None:
    keys = [key(each) for each in [message(), *OTHERS]]
    assert len(set(keys)) == len(keys)


def test_another_delivery_is_the_same_letter() -> None:
    again = message(redelivered=True, given={"redelivered": "true"}, subscription="s2", receipt="r")
    assert key(again) == key(message())
    moved = message()
    assert key(
        text_message("ID:1", "/queue/x", dict(reversed(list(moved.native.items()))), b"{}", moved.kind, True, 9, "")
    ) == key(moved)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_archive_gives_back_the_same_letter(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    with ArchiveWriter(path) as writer:
        writer.append([message(), *OTHERS])
    back = [each for batch in records.read(path) for each in batch.messages]
    assert [key(each) for each in back] == [key(each) for each in [message(), *OTHERS]]
    with ArchiveWriter(path) as writer:
        assert all(writer.has(each) for each in [message(), *OTHERS])
        assert not writer.has(message(b"{ }"))


def of_queue(dead: DeadQueue, name: str) -> DeadQueue:
    return DeadQueue(dead.broker, dead.folder, dead.origin, f"{dead.queue}.{name}", dead.suffix)


@pytest.mark.activemq
@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.zst"])
def test_the_same_ids_in_two_queues_are_kept_and_sent_back_for_each(real_dead: DeadQueue, suffix: str) -> None:
    real_dead.suffix = suffix
    one, two = of_queue(real_dead, "x"), of_queue(real_dead, "y")
    raw = real_dead.raw()
    raw.send(f"{one.queue},{two.queue}", [(one.letter(n), b'{"n": %d}' % n) for n in range(10)])
    raw.close()
    for dead in (one, two):
        summary = dead.drained()
        assert (summary["archived"], summary["known"], summary["removed"]) == (10, 0, 10)
    archived = real_dead.archived()
    assert len({each.id for each in archived}) == 10
    assert len({key(each) for each in archived}) == len(archived) == 20
    assert real_dead.restored("--limit", "13")["replayed"] == 13
    again = real_dead.restored()
    assert (again["replayed"], again["sent_before"]) == (7, 13)
    assert sorted(real_dead.numbers(real_dead.origin)) == sorted([*range(10), *range(10)])


def scripted_records(dead: DeadQueue) -> None:
    """Write an archive by hand in which each id stands for two letters."""
    with ArchiveWriter(dead.file) as writer:
        for name in ("x", "y"):
            headers = {"original_destination": dead.origin, "dlq_stage": "infer"}
            writer.append(
                [
                    message(b'{"n": %d}' % n, queue=f"/queue/{name}", message_id=f"ID:{n}", given=headers)
                    for n in range(5)
                ]
            )


def test_the_same_ids_of_two_queues_are_sent_back_for_each(dead: DeadQueue) -> None:
    scripted_records(dead)
    assert dead.restored("--limit", "7")["replayed"] == 7
    again = dead.restored()
    assert (again["replayed"], again["sent_before"]) == (3, 7)
    assert sorted(dead.numbers(dead.origin)) == sorted([*range(5), *range(5)])


def test_an_id_that_is_used_again_for_other_content_is_archived_again(dead: DeadQueue) -> None:
    """The archive knows the id of what is in the queue, but not the content: it must not be removed unarchived."""
    dead.fill(3)
    shown = [json.loads(line) for line in dead.peek("-o", "jsonl").stdout.splitlines()]
    with ArchiveWriter(dead.file) as writer:
        writer.append([message(b'{"n": 99}', queue=dead.queue, message_id=each["id"]) for each in shown])
    summary = dead.drained()
    assert (summary["archived"], summary["known"], summary["removed"]) == (3, 0, 3)
    assert dead.archived_numbers() == [99, 99, 99, 0, 1, 2]


@pytest.mark.activemq
def test_letters_whose_jms_property_gives_them_one_id_are_all_archived(real_dead: DeadQueue) -> None:
    """A JMS property `message-id` hides the broker's own id."""
    real_dead.put([(real_dead.letter(n, **{"message-id": "ID\\cone"}), b'{"n": %d}' % n) for n in range(4)])
    summary = real_dead.drained()
    assert summary["removed"] == summary["archived"] == 4
    assert real_dead.archived_numbers() == [0, 1, 2, 3]
    real_dead.restored()
    assert sorted(real_dead.numbers(real_dead.origin)) == [0, 1, 2, 3]
