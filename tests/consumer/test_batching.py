"""Batches: each event ends for itself, whatever its neighbours do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertool.consumer.attempt import Outcome, Tried
from infertool.consumer.batch_calls import call_batch
from infertool.consumer.batching.port import FixedBatches
from infertool.consumer.worker import Threads
from infertool.errors import InferenceError, ModelLoadError
from infertool.models.port import LoadedModel
from tests.consumer.harness import LONG, Bench, failures

SIZE = 16
KINDS = ["fine", "raises", "exits", "returned", "refused", "mutates"]
EXPECTED = {
    "fine": None, "mutates": None, "raises": "ValueError", "exits": "SystemExit", "returned": "KeyError",
    "refused": "InferenceError",
}  # fmt: skip


def predict_batch(payloads: Sequence[dict[str, Any]]) -> list[object]:
    """Do what each payload says, as wickedly as a model could."""
    results: list[object] = []
    for payload in payloads:
        match payload["kind"]:
            case "raises":
                raise ValueError(payload["n"])
            case "exits":
                raise SystemExit(payload["n"])
            case "returned":
                results.append(KeyError(payload["n"]))
            case "refused":
                results.append(InferenceError(str(payload["n"]), retryable=False))
            case "mutates":
                results.append(payload.pop("n"))
            case _:
                results.append(payload["n"])
    return results


def call(kinds: Sequence[str], function: Callable[[Sequence[Any]], Any] = predict_batch) -> tuple[list[Any], list[int]]:
    """Return what was tried, and the sizes of the calls."""
    sizes: list[int] = []

    def counted(payloads: Sequence[dict[str, Any]]) -> Any:
        sizes.append(len(payloads))
        return function(payloads)

    def tried(payloads: list[dict[str, Any]]) -> list[Tried]:
        """Call as a worker does: when a call fails, with each part."""
        found = call_batch(counted, [dict(payload) for payload in payloads])
        if not isinstance(found, int):
            return found
        parts = [payloads[start : start + found] for start in range(0, len(payloads), found)]
        return [each for part in parts for each in tried(part)]

    return tried([{"n": n, "kind": kind} for n, kind in enumerate(kinds)]), sizes


@given(st.lists(st.sampled_from(KINDS), max_size=SIZE))
def test_every_event_ends_as_it_would_alone(kinds: list[str]) -> None:
    tried, _ = call(kinds)
    assert [each.failure and each.failure.error_type for each in tried] == [EXPECTED[kind] for kind in kinds]
    for number, (kind, each) in enumerate(zip(kinds, tried, strict=True)):
        if each.failure is None:
            assert each.prediction == number
        else:
            assert each.failure.error.strip("'") == str(number)
            assert each.failure.retryable is (kind in {"raises", "returned"})


@pytest.mark.parametrize("position", range(SIZE))
def test_one_poison_costs_few_calls_and_no_neighbour(position: int) -> None:
    tried, sizes = call(["raises" if n == position else "fine" for n in range(SIZE)])
    assert [n for n, each in enumerate(tried) if each.failure] == [position]
    assert sizes[0] == SIZE
    assert len(sizes) == 1 + 2 * 4


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda _payloads: [], "0 results for 1 events"),
        (lambda payloads: [1, *payloads], "2 results for 1 events"),
        (lambda _payloads: None, "NoneType, not a list"),
        (lambda payloads: {payload["n"]: 1 for payload in payloads}, "dict, not a list"),
        (lambda payloads: "x" * len(payloads), "str, not a list"),
        (lambda payloads: {payload["n"] for payload in payloads}, "set, not a list"),
        (lambda payloads: Table(len(payloads)), "Table, not a list"),
        (lambda _payloads: 7, "not iterable"),
    ],
)
def test_results_that_cannot_be_matched(function: Any, told: str) -> None:
    tried, _ = call(["fine"] * 3, function)
    for each in tried:
        assert each.failure.error_type in {"WrongResultsError", "TypeError"}
        assert told in each.failure.error


class Table:
    """Iterates as a table of pandas does: over the names of its columns."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.columns = [f"column {n}" for n in range(rows)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


def test_results_that_would_match_a_smaller_batch_by_chance() -> None:
    """A pair of lists: of labels, and of scores."""
    tried, sizes = call(["fine"] * 64, lambda payloads: (["A"] * len(payloads), [0.9] * len(payloads)))
    assert {each.failure and each.failure.error for each in tried} == {"predict_batch returned 2 results for 1 events"}
    assert sizes == [64] + [1] * 64


def test_a_model_that_drops_what_it_dislikes_fails_only_that() -> None:
    tried, _ = call(["fine"] * 7, lambda payloads: [payload["n"] for payload in payloads if payload["n"] != 5])
    assert [each.prediction for each in tried] == [0, 1, 2, 3, 4, None, 6]
    assert tried[5].failure.error_type == "WrongResultsError"


def test_any_sequence_will_do() -> None:
    assert [each.prediction for each in call(["fine"] * 3, lambda p: tuple(x["n"] for x in p))[0]] == [0, 1, 2]
    assert [each.prediction for each in call(["fine"] * 3, lambda p: (x["n"] for x in p))[0]] == [0, 1, 2]


def bench_of(function: Any, limits: FixedBatches, **options: Any) -> Bench:
    model = LoadedModel("test", "test", lambda _payload: None, predict_batch=function)
    return Bench(Threads(model, in_batches=True), batches=limits, **options)


def test_batches_fill_up_to_their_size() -> None:
    sizes: list[int] = []

    def function(payloads: list[dict[str, Any]]) -> list[int]:
        sizes.append(len(payloads))
        return [payload["n"] for payload in payloads]

    bench = bench_of(function, FixedBatches(8, LONG), concurrency=3)
    for _ in range(32):
        bench.submit(1)  # one by one: only who waits gets full batches
    outcomes = bench.wait(32)
    assert sizes == [8] * 4
    assert all(outcome.prediction == int(outcome.event.event_id) for outcome in outcomes)
    assert bench.stop()


def test_a_batch_that_does_not_fill_goes_when_its_time_is_up() -> None:
    bench = bench_of(lambda payloads: [len(payloads)] * len(payloads), FixedBatches(1000, 0.02))
    bench.submit(3)
    assert [outcome.prediction for outcome in bench.wait(3)] == [3, 3, 3]
    assert bench.stop()


def test_a_stop_does_not_wait_for_a_batch_to_fill() -> None:
    bench = bench_of(lambda payloads: payloads, FixedBatches(1000, LONG))
    bench.submit(3)
    assert bench.stop()
    assert not bench.outcomes


def test_poison_that_cannot_be_decoded_leaves_its_batch() -> None:
    bench = bench_of(lambda payloads: [payload["n"] for payload in payloads], FixedBatches(3, LONG))
    bench.submit_all([{"n": 0}, {"n": 1, "long": "x" * 2000}, {"n": 2}])
    assert failures(bench.wait(3)) == {"1": "TooLarge"}
    assert bench.stop()


def test_what_failed_in_a_batch_is_tried_again_alone() -> None:
    sizes: list[int] = []

    def function(payloads: list[dict[str, Any]]) -> list[object]:
        sizes.append(len(payloads))
        return [ValueError("no") if payload["n"] == 2 else 1 for payload in payloads]

    bench = bench_of(function, FixedBatches(4, LONG))
    bench.submit(4)
    [failed] = [outcome for outcome in bench.wait(4) if outcome.failure]
    assert bench.again(failed).failure
    assert sizes == [4, 1]
    assert bench.stop()


def test_a_batch_that_hangs_is_tried_one_by_one() -> None:
    release = threading.Event()

    def function(payloads: list[dict[str, Any]]) -> list[int]:
        if any(payload["n"] == 1 for payload in payloads):
            release.wait(LONG)
        return [payload["n"] for payload in payloads]

    bench = bench_of(function, FixedBatches(3, LONG), timeout_s=1.0)
    bench.submit(3)
    outcomes: list[Outcome] = bench.wait(3)
    assert failures(outcomes) == {"1": "Timeout"}
    assert {outcome.event.attempts for outcome in outcomes} == {1}, "the try in company does not count"
    release.set()
    assert bench.stop()


def test_a_model_without_predict_batch_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="has no predict_batch"):
        Threads(LoadedModel("test", "test", lambda _payload: None), in_batches=True)
