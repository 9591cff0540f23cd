"""Order by key, over schedules of reads and settlements in any order."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from infertool.brokers.kafka.order import KeyOrder

_KEYS = st.sampled_from([None, b"", b"a", b"b", b"c"])


@given(st.lists(_KEYS, max_size=60), st.lists(st.integers(0, 1000), max_size=200))
def test_events_of_a_key_run_one_after_another_and_none_is_left(keys: list[bytes | None], schedule: list[int]) -> None:
    order: KeyOrder[int] = KeyOrder()
    unread = list(enumerate(keys))
    in_work: list[int] = []
    settled: dict[bytes | None, list[int]] = defaultdict(list)

    def step(pick: int) -> None:
        if unread and (pick % 2 or not in_work):
            offset, key = unread.pop(0)
            if order.add(offset, key, offset):
                in_work.append(offset)
        elif in_work:
            offset = in_work.pop(pick % len(in_work))
            settled[keys[offset]].append(offset)
            following = order.settle(offset)
            if following is not None:
                assert keys[following] == keys[offset]
                in_work.append(following)
        own = [keys[offset] for offset in in_work if keys[offset] is not None]
        assert len(own) == len(set(own))
        # Another key, or none, is never held back.
        read = len(keys) - len(unread)
        assert order.held == read - len(in_work) - sum(map(len, settled.values()))

    for pick in schedule:
        step(pick)
    while unread or in_work:
        step(0)
    assert sum(map(len, settled.values())) == len(keys)
    assert all(offsets == sorted(offsets) for key, offsets in settled.items() if key is not None)
    assert not order._waiting
    assert not order._keys


def test_what_was_not_held_is_ignored() -> None:
    order: KeyOrder[str] = KeyOrder()
    assert order.settle(3) is None
    assert order.add(1, b"k", "one")
    assert not order.add(2, b"k", "two")
    assert order.settle(2) is None
    assert order.settle(1) == "two"
    assert order.held == 0
