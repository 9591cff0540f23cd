"""The text that a commit carries: what it says comes back, it is short, and others' texts are not read."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertool.brokers.kafka.metadata import MOST, Progress, decode, encode, fits

_LENGTHS = st.lists(
    st.tuples(st.integers(1, 60) | st.integers(1, 2**40), st.integers(1, 60) | st.integers(1, 2**40)), max_size=60
)


def _runs(lengths: list[tuple[int, int]], start: int) -> list[range]:
    runs = []
    for gap, length in lengths:
        runs.append(range(start + gap, start + gap + length))
        start += gap + length
    return runs


@given(_LENGTHS, st.integers(0, 2**50), st.integers(0, 2**63 - 1))
def test_what_is_encoded_comes_back(lengths: list[tuple[int, int]], start: int, taken: int) -> None:
    runs = _runs(lengths, start)
    assert decode(encode(runs, taken)) == Progress(tuple(runs), taken)


@given(st.integers(0, 2**60), st.lists(st.booleans(), min_size=1, max_size=3000))
def test_any_set_of_done_offsets_comes_back_and_is_found(base: int, flags: list[bool]) -> None:
    """Dense sets are written as bits, sparse ones as runs."""
    done = [base + index for index, flag in enumerate(flags) if flag]
    runs = [range(offset, offset + 1) for offset in done]
    joined: list[range] = []
    for run in runs:
        joined[-1:] = [range(joined[-1].start, run.stop)] if joined and joined[-1].stop == run.start else [
            *joined[-1:], run
        ]  # fmt: skip
    progress = decode(encode(joined, 5))
    assert progress is not None
    assert [offset for offset in range(base, base + len(flags)) if progress.is_done(offset)] == done


@given(st.integers(1, 4000), st.integers(0, 40_000), st.randoms(use_true_random=False))
def test_what_fits_is_written_whole_whichever_events_are_settled(count: int, more: int, random_: random.Random) -> None:
    span = count + more
    if not fits(count, span):
        return
    base = 2**62
    still_open = sorted(random_.sample(range(base, base + span), count))
    edges = [base - 1, *still_open, base + span]
    done = [range(before + 1, after) for before, after in pairwise(edges) if after - before > 1]
    text = encode(done, base + span)
    assert len(text) <= MOST
    progress = decode(text)
    assert progress is not None
    assert progress.done == tuple(done)


def test_the_default_limits_always_fit() -> None:
    """A window of 1 000, of a gap of 10 000 offsets, all held back or all in work."""
    assert fits(1_000, 10_500)
    assert fits(10_500, 10_500)
    assert fits(1_000, 2**40) is False
    assert fits(100, 2**60)


def test_what_does_not_fit_is_left_out_from_the_end() -> None:
    runs = [range(offset, offset + 1) for offset in range(0, 200_000, 50)]
    text = encode(runs, 7)
    assert len(text) <= MOST
    progress = decode(text)
    assert progress is not None
    assert 500 < len(progress.done) < len(runs)
    assert progress.done == tuple(runs[: len(progress.done)])


@pytest.mark.parametrize(
    "text",
    [
        None, "", "x", "infertool/2 5", "infertool/1", "infertool/1 ", "infertool/1 x", "infertool/1 5 ",
        "infertool/1 5 3", "infertool/1 5 3 r:", "infertool/1 5 3 x:AB", "infertool/1 5 3 r:A", "infertool/1 5 3 r:BB",
        "infertool/1 5 3 r:g", "infertool/1 5 3 r:B!", "infertool/1 5 3 r:" + "_" * 40, "infertool/1 5 3 b:A",
        "infertool/1 5 3 b:AAAA", "infertool/1 5 3 b:é", "infertool/1 5 3 r:é", "infertool/1 99999999999999999999",
        # Others': an empty note of Java's client, a note of a program, and Parallel Consumer's offset map.
        "0", '{"host":"a"}', "bgAAAAAAAAAB", "infertool/1 5 3 r:B\n",
    ],
)  # fmt: skip
def test_a_text_of_another_program_or_a_broken_one_is_not_read(text: str | None) -> None:
    assert decode(text) is None


@given(st.text(max_size=40), st.binary(max_size=60))
def test_no_text_makes_it_fail(tail: str, noise: bytes) -> None:
    for text in (tail, "infertool/1 " + tail, "infertool/1 1 2 r:" + tail, "infertool/1 1 2 b:" + noise.hex()):
        progress = decode(text)
        if progress is not None:
            assert all(len(run) > 0 for run in progress.done)
            assert all(one.stop < other.start for one, other in pairwise(progress.done))
