"""What waits of several queues, when connections and partitions go."""

from __future__ import annotations

from typing import Any

import pytest

from infertool.consumer.weighted import Weighted
from infertool.message import BodyKind, Message


def message(name: str, epoch: int, partition: str = "") -> Message:
    body, kind = b"{}", BodyKind.TEXT
    return Message(name, "q", {}, body, kind, redelivered=False, epoch=epoch, token=name, partition=partition)


def names(weighted: Weighted) -> set[str]:
    return {found.id for found in weighted.take(100)}


@pytest.mark.parametrize(
    ("later", "left"),
    [
        ({"epoch": 2, "partition": "p/0"}, {"b", "c", "new"}),
        ({"epoch": 2, "partition": "q/0"}, {"a", "b", "new"}),
        ({"epoch": 1, "partition": "p/0"}, {"a", "b", "c", "new"}),
        ({"epoch": 0, "partition": "p/0"}, {"a", "b", "c"}),
        ({"epoch": 1, "partition": "p/2"}, {"a", "b", "c", "new"}),
    ],
)
def test_an_epoch_of_a_partition_ends_the_one_before(later: dict[str, Any], left: set[str]) -> None:
    weighted = Weighted([2, 1])
    weighted.add(0, [message("a", 1, "p/0"), message("b", 1, "p/1")])
    weighted.add(1, [message("c", 1, "q/0")])
    weighted.add(0, [message("new", **later)])
    assert names(weighted) == left


def test_a_new_connection_without_partitions_ends_all_queues() -> None:
    weighted = Weighted([2, 1])
    weighted.add(0, [message("a", 1)])
    weighted.add(1, [message("b", 1)])
    weighted.add(0, [message("c", 2)])
    weighted.add(1, [message("d", 1), message("e", 2)])
    assert names(weighted) == {"c", "e"}


def test_partitions_are_taken_out() -> None:
    weighted = Weighted([2, 1])
    weighted.add(0, [message("a", 1, "p/0"), message("b", 1, "p/1")])
    assert [found.id for found in weighted.remove({"p/0"})] == ["a"]
    assert (len(weighted), names(weighted)) == (1, {"b"})
