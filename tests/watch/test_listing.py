"""The list on the screen: filter, pause, order, cursor; compared with a simple model after any actions."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from infertool.channels.event import ChannelEvent
from infertool.filters import expression
from infertool.watch.entry import Entry, Kind, gap, read
from infertool.watch.listing import STEP, Listing, Ring, Sort
from tests.support.present import present


def entry(number: int, **payload: Any) -> Entry:
    return read(number, ChannelEvent("t", "new_result", payload, float(number)))


def filled(count: int, keep: int = 100_000) -> Listing:
    listing = Listing(keep)
    listing.add([entry(n, n=n, processing_ms=n % 7) for n in range(1, count + 1)])
    settle(listing)
    return listing


def settle(listing: Listing) -> None:
    while listing.work():
        pass


def numbers(listing: Listing) -> list[int]:
    return [each.number for each in listing.all_rows()]


def test_newest_first_and_older_ones_dropped_and_counted() -> None:
    listing = filled(12, keep=10)
    assert numbers(listing) == list(range(12, 2, -1))
    assert listing.ring.dropped == 2


def test_large_payloads_bound_the_ring_and_the_newest_stays() -> None:
    ring = Ring(1_000, most_bytes=1_000)
    ring.add([entry(n, text="x" * 300) for n in range(1, 6)])
    assert (len(ring), ring.dropped) == (3, 2)
    ring.add([entry(6, text="x" * 5_000)])
    assert [each.number for each in ring] == [6]


def test_a_filter_works_through_the_older_ones_in_steps_newest_first() -> None:
    listing = filled(3 * STEP)
    listing.set_filter(expression.compile("n % 2 == 0"))
    assert numbers(listing)[:2] == [3 * STEP, 3 * STEP - 2]
    assert listing.count == STEP // 2
    settle(listing)
    assert numbers(listing) == list(range(3 * STEP, 0, -2))
    listing.set_filter(None)
    assert listing.count == 3 * STEP


def test_a_filter_holds_for_what_comes_later_and_never_hides_a_gap() -> None:
    listing = filled(2)
    listing.set_filter(expression.compile("n > 100"))
    listing.add([entry(3, n=3), gap(4, 4.0, "gone"), entry(5, n=500)])
    settle(listing)
    assert [each.kind for each in listing.all_rows()] == [Kind.RESULT, Kind.GAP]


def test_a_filter_whose_result_is_no_bool_names_the_reason() -> None:
    listing = filled(2)
    assert "not true or false" in listing.fault_of(expression.compile("n + 1"))
    assert listing.fault_of(expression.compile("n == 1")) == ""
    listing.set_filter(expression.compile("n"))
    assert "not true or false" in listing.filter_error


def test_a_pause_holds_still_and_resuming_loses_nothing() -> None:
    listing = filled(5)
    listing.pause()
    listing.add([entry(n, n=n) for n in range(6, 21)])
    settle(listing)
    assert (numbers(listing), listing.waiting) == ([5, 4, 3, 2, 1], 15)
    listing.resume()
    assert numbers(listing) == list(range(20, 0, -1))


def test_a_pause_keeps_what_the_ring_drops_meanwhile_on_the_screen() -> None:
    listing = filled(5, keep=5)
    listing.pause()
    listing.add([entry(n, n=n) for n in range(6, 16)])
    listing.set_filter(expression.compile("n >= 4"))
    settle(listing)
    assert (numbers(listing), listing.waiting) == ([5, 4], 5)
    listing.set_filter(None)
    listing.resume()
    assert numbers(listing) == [15, 14, 13, 12, 11]


def test_following_stays_at_the_newest_and_else_the_selected_row_stays() -> None:
    listing = filled(50)
    listing.resize(10)
    listing.add([entry(51, n=51)])
    settle(listing)
    assert present(listing.selected()).number == 51
    listing.move(3)
    chosen, shown = listing.selected(), listing.rows()
    listing.add([entry(n, n=n) for n in range(52, 80)])
    settle(listing)
    assert (listing.selected(), listing.rows()) == (chosen, shown)
    listing.set_follow(True)
    assert present(listing.selected()).number == 79


def test_each_order_and_the_cursor_stays_on_its_entry() -> None:
    listing = filled(30)
    listing.sort_next()
    assert listing.sort is Sort.SLOWEST
    assert [each.processing_ms for each in listing.all_rows()] == sorted([n % 7 for n in range(1, 31)], reverse=True)
    listing.move(4)
    chosen = listing.selected()
    listing.add([entry(31, n=31, processing_ms=100.0)])
    settle(listing)
    listing.resort()
    assert listing.selected() is chosen
    assert listing.all_rows()[0].number == 31
    listing.sort_next()
    listing.add([entry(32, prediction={"confidence": 0.1}), entry(33, prediction={"confidence": 0.05})])
    settle(listing)
    listing.resort()
    assert [each.number for each in listing.all_rows()[:2]] == [33, 32]


STEPS = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 30)),
    st.tuples(st.just("move"), st.integers(-40, 40)),
    st.tuples(st.just("scroll"), st.integers(-40, 40)),
    st.tuples(st.just("resize"), st.integers(0, 20)),
    st.tuples(
        st.sampled_from(["pause", "resume", "sort", "follow", "stay", "filter", "all", "work", "resort"]), st.just(0)
    ),
)  # fmt: skip


@given(st.lists(STEPS, max_size=60))
def test_any_sequence_of_actions_shows_the_right_page(steps: list[tuple[str, int]]) -> None:
    listing, last, expected, even = Listing(40), 0, [], False
    for what, amount in steps:
        match what:
            case "add":
                listing.add([entry(last + n, n=last + n, processing_ms=(last + n) % 5) for n in range(1, amount + 1)])
                last += amount
            case "filter" | "all":
                even = what == "filter"
                listing.set_filter(expression.compile("n % 2 == 0") if even else None)
            case "sort":
                listing.sort_next()
            case "follow" | "stay":
                listing.set_follow(what == "follow")
            case "move" | "scroll" | "resize":
                getattr(listing, what)(amount)
            case _:
                getattr(listing, what)()
        settle(listing)
        listing.resort()
        if not listing.paused:
            expected = list(range(last, max(last - 40, 0), -1))
        wanted = [n for n in expected if not even or n % 2 == 0]
        assert sorted(numbers(listing), reverse=True) == wanted
        if listing.sort is Sort.NEWEST:
            assert numbers(listing) == wanted
        assert listing.rows() == listing.all_rows()[listing.top : listing.top + listing.height]
        assert listing.count == 0 or listing.top <= listing.cursor < listing.top + listing.height
        assert listing.count == 0 or listing.selected() in listing.rows()
