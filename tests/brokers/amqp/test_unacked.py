"""Acks: the fewest frames, each for a delivery that the broker still holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from infertool.brokers.amqp.unacked import Unacked


def delivered(count: int) -> Unacked:
    unacked = Unacked()
    unacked.newest = count
    return unacked


def test_a_whole_window_is_one_ack() -> None:
    assert delivered(200).settle(range(1, 201)) == (200, [])


def test_acks_out_of_order_are_single_until_the_gap_closes() -> None:
    unacked = delivered(5)
    assert unacked.settle([2]) == (0, [2])
    assert unacked.settle([4, 5]) == (0, [4, 5])
    # Those above 3 are acked: the broker would not find them.
    assert unacked.settle([1, 3]) == (3, [])
    assert not any(unacked.is_open(tag) for tag in range(7))


@given(st.permutations(range(1, 30)), st.lists(st.integers(1, 6), min_size=30, max_size=30))
def test_the_broker_finds_each_ack_and_all_are_acked(order: list[int], sizes: list[int]) -> None:
    unacked, held, rest = delivered(29), set(range(1, 30)), list(order)
    for size in sizes:
        tags, rest = rest[:size], rest[size:]
        if not tags:
            break
        up_to, single = unacked.settle(tags)
        if up_to:
            assert up_to in held
            held -= set(range(1, up_to + 1))
        assert set(single) <= held
        held -= set(single)
        assert all(unacked.is_open(tag) == (tag in held) for tag in range(1, 30))
    assert held == set(rest)
