"""Joining results into pushes: sizes, the trial, and taking apart."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from infertool.phoenix.delivery import Push
from infertool.phoenix.frames import Frame
from infertool.phoenix.push import documents
from infertool.publishers.phoenix import Batches, PhoenixPublisher
from infertool.publishers.port import Publication
from infertool.settings.tree import PhoenixSettings, PublishSettings


def results(count: int, *, size: int = 20) -> list[Publication[int]]:
    return [
        Publication("new_result", f"e{number}", b'{"event_id":"e%d","x":"%b"}' % (number, b"x" * size), number)
        for number in range(count)
    ]


class Joined:
    """Push batches whose channel has confirmed one."""

    def __init__(self, most: int, max_bytes: int = 1_000_000) -> None:
        self.warnings: list[str] = []
        self.batches = Batches[int](most, max_bytes, self.warnings.append)

    def trusted(self) -> Batches[Any]:
        self.batches.join(results(2))
        self.batches.confirmed()
        return self.batches


def members(push: Push[Any]) -> tuple[Any, ...]:
    """Return the publications in a batch; nothing for a single one."""
    return push.context if len(push.context) > 1 else ()


def contexts(pushes: list[Push[Any]]) -> list[object]:
    return [each.context for push in pushes for each in push.context]


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [0]), (8, [8]), (9, [8, 0]), (20, [8, 8, 4])])
def test_as_many_as_may_be_in_order(count: int, sizes: list[int]) -> None:
    pushes = Joined(8).trusted().join(results(count))
    assert [len(members(push)) for push in pushes] == sizes
    assert contexts(pushes) == list(range(count))


def test_a_batch_holds_its_documents_and_their_ids() -> None:
    [push] = Joined(8).trusted().join(results(3))
    assert (push.event, push.event_ids) == ("new_results", ("e0", "e1", "e2"))
    assert orjson.loads(push.payload) == {"results": [orjson.loads(each.payload) for each in results(3)]}


@pytest.mark.parametrize("max_bytes", [100, 500, 1000, 5000])
def test_no_batch_is_larger_than_a_push_may_be(max_bytes: int) -> None:
    pushes = Joined(64, max_bytes).trusted().join(results(50, size=60))
    assert contexts(pushes) == list(range(50))
    assert all(len(push.payload) <= max_bytes for push in pushes)
    assert max(len(members(push)) for push in pushes) == {100: 0, 500: 5, 1000: 11, 5000: 50}[max_bytes]


@pytest.mark.parametrize(
    ("settings", "count", "size", "sizes"),
    [
        (PublishSettings(batch="auto"), 130, 20, [64, 64, 2]),
        (PublishSettings(batch="auto"), 8, 20_000, [3, 3, 2]),
        (PublishSettings(batch="auto"), 2, 70_000, [0, 0]),
        (PublishSettings(batch="auto", max_bytes=30_000), 4, 10_000, [2, 2]),
        (PublishSettings(batch=8), 8, 20_000, [8]),
    ],
)
def test_auto_joins_what_comes_together_up_to_64_results_or_64_kib(
    settings: PublishSettings, count: int, size: int, sizes: list[int]
) -> None:
    publisher: PhoenixPublisher[int] = PhoenixPublisher(PhoenixSettings(), settings, lambda _signal: None)
    publisher._batches.join(results(2))
    publisher._batches.confirmed()
    pushes = publisher._batches.join(results(count, size=size))
    assert [len(members(push)) for push in pushes] == sizes


def test_auto_waits_for_the_announcement_and_forgets_it_with_the_server() -> None:
    batches = Batches[int](4, 1_000_000, lambda _text: None, if_announced=True)
    assert {push.event for push in batches.join(results(4))} == {"new_result"}
    batches.joined({"accepts": ["new_result", "new_results"]})
    assert [push.event for push in batches.join(results(8))] == ["new_results", *["new_result"] * 4]
    batches.confirmed()
    batches.joined({"accepts": ["new_results"]})
    assert [push.event for push in batches.join(results(8))] == ["new_results", "new_results"]
    batches.joined({})
    assert {push.event for push in batches.join(results(8))} == {"new_result"}
    batches.joined({"accepts": ["new_results"]})
    assert [push.event for push in batches.join(results(8))] == ["new_results", *["new_result"] * 4]


@pytest.mark.parametrize("response", [None, [], "new_results", 7, {"accepts": None}, {"accepts": {"new_results": 1}}])
def test_a_response_of_another_form_announces_nothing(response: Any) -> None:
    batches = Batches[int](4, 1_000_000, lambda _text: None, if_announced=True)
    batches.joined(response)
    assert {push.event for push in batches.join(results(4))} == {"new_result"}


def test_a_number_needs_no_announcement() -> None:
    batches = Batches[int](4, 1_000_000, lambda _text: None)
    batches.joined({})
    assert [push.event for push in batches.join(results(4))] == ["new_results"]


def test_only_one_batch_is_risked_until_it_is_confirmed() -> None:
    batches = Joined(4).batches
    assert [push.event for push in batches.join(results(6))] == ["new_results", "new_result", "new_result"]
    assert {push.event for push in batches.join(results(6))} == {"new_result"}
    batches.confirmed()
    assert [push.event for push in batches.join(results(8))] == ["new_results", "new_results"]


def test_a_channel_that_refuses_the_first_gets_no_other() -> None:
    joined = Joined(4)
    [trial] = joined.batches.join(results(4))
    assert contexts(joined.batches.take_apart(trial, "unknown event")) == [0, 1, 2, 3]
    assert {push.event for push in joined.batches.join(results(8))} == {"new_result"}
    [warning] = joined.warnings
    assert "unknown event" in warning


def test_a_later_refusal_puts_the_next_on_trial() -> None:
    joined = Joined(4)
    first, second = joined.trusted().join(results(8))
    joined.batches.take_apart(first, "bad result")
    assert [push.event for push in joined.batches.join(results(8))] == ["new_results", *["new_result"] * 4]
    assert not joined.warnings
    assert contexts(joined.batches.take_apart(second, "bad result")) == [4, 5, 6, 7]


def test_a_trial_beside_a_push_that_ended_the_channel_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("infertool.publishers.phoenix.time.monotonic", lambda: now)
    joined = Joined(4)
    [trial] = joined.batches.join(results(4))
    joined.batches.take_apart(trial, "channel crashed", crashes=1)
    assert {push.event for push in joined.batches.join(results(4))} == {"new_result"}
    now += 3600
    assert [push.event for push in joined.batches.join(results(4))] == ["new_results"]
    assert not joined.warnings


def test_one_is_no_batch() -> None:
    assert {push.event for push in Joined(1).batches.join(results(5))} == {"new_result"}


def test_what_a_broadcast_holds() -> None:
    frame = Frame(None, None, "t", "new_results", {"results": [{"a": 1}, {"b": 2}]})
    assert documents(frame) == [{"a": 1}, {"b": 2}]
    payloads: list[Any] = [[], {"results": 3}, None]
    for payload in payloads:
        odd = Frame(None, None, "t", "new_results", payload)
        assert documents(odd) == [payload]


def test_a_channel_that_took_batches_gets_them_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was away says nothing about batches."""
    now = 1000.0
    monkeypatch.setattr("infertool.publishers.phoenix.time.monotonic", lambda: now)
    joined = Joined(4)
    first, second = joined.trusted().join(results(8))
    joined.batches.take_apart(first, "channel crashed")
    [trial] = joined.batches.join(results(4))
    joined.batches.take_apart(second, "channel crashed")
    assert {push.event for push in joined.batches.join(results(4))} == {"new_result"}, "one trial at a time"
    joined.batches.take_apart(trial, "channel crashed")
    assert {push.event for push in joined.batches.join(results(4))} == {"new_result"}
    now += 3600
    assert [push.event for push in joined.batches.join(results(4))] == ["new_results"]
    assert not joined.warnings
