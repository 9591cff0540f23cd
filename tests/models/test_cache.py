"""The cache answers for equal events, and for no others."""

from __future__ import annotations

import itertools
import math
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from infertool.errors import InferenceError
from infertool.models.batch_results import WrongResultsError
from infertool.models.loader import cached
from infertool.models.port import Cached, LoadedModel
from tests.support.present import present


class Counting:
    """Numbers its answers; fails for an event that says so."""

    def __init__(self) -> None:
        self.calls = 0

    def predict(self, payload: Any) -> dict[Any, Any]:
        self.calls += 1
        if "fail" in payload:
            raise InferenceError("told to")
        return {"call": self.calls}

    def predict_batch(self, payloads: Any) -> list[Any]:
        return [InferenceError("told to") if "fail" in payload else self.predict(payload) for payload in payloads]


def front(model: Counting, *, entries: int = 10, ttl_s: float = 60.0) -> LoadedModel:
    loaded = LoadedModel("m", "m", model.predict, model.predict_batch)
    return cached(loaded, entries=entries, ttl_s=ttl_s, ignore=["event_id", "sent_at"])


def test_equal_events_call_the_model_once_for_any_order_of_keys_and_any_ids() -> None:
    model = Counting()
    predict = front(model).predict
    assert predict({"a": {"x": 1, "y": [1, 2]}, "event_id": "1"}) == {"call": 1}
    assert predict({"event_id": "2", "sent_at": 3.5, "a": {"y": [1, 2], "x": 1}}) == Cached({"call": 1})
    assert predict({"a": {"y": [2, 1], "x": 1}}) == {"call": 2}
    assert predict({"a": {"y": [2, 1], "x": 1, "event_id": "inner ids count"}}) == {"call": 3}
    assert model.calls == 3


def test_failures_are_not_cached() -> None:
    model = Counting()
    predict = front(model).predict
    for _ in range(2):
        with pytest.raises(InferenceError):
            predict({"fail": True})
    assert model.calls == 2


def test_a_result_that_is_not_json_is_not_cached() -> None:
    numbers = itertools.count(1)
    loaded = LoadedModel("m", "m", lambda _payload: {next(numbers)})
    predict = cached(loaded, entries=1, ttl_s=60, ignore=[]).predict
    assert [predict({}), predict({})] == [{1}, {2}]


def test_changing_a_result_does_not_change_the_cached_one() -> None:
    predict = front(Counting()).predict
    predict({})["call"] = "changed"
    predict({}).result["call"] = "changed, too"
    assert predict({}) == Cached({"call": 1})


def test_a_batch_asks_for_what_is_missing_and_keeps_the_order() -> None:
    model = Counting()
    batch = present(front(model).predict_batch)
    assert batch([{"n": 1}, {"n": 2}]) == [{"call": 1}, {"call": 2}]
    first, failed, second, new = batch([{"n": 2}, {"n": 9, "fail": 1}, {"n": 1}, {"n": 3}])
    assert (first, second, new) == (Cached({"call": 2}), Cached({"call": 1}), {"call": 3})
    assert isinstance(failed, InferenceError)
    assert batch([{"n": 1}, {"n": 3}]) == [Cached({"call": 1}), Cached({"call": 3})]
    assert model.calls == 3
    assert isinstance(batch([{"n": 9, "fail": 1}])[0], InferenceError)


def test_a_batch_with_the_wrong_number_of_results_fails() -> None:
    loaded = LoadedModel("m", "m", lambda _payload: 1, lambda _payloads: [1])
    batch = present(cached(loaded, entries=5, ttl_s=60, ignore=[]).predict_batch)
    with pytest.raises(InferenceError, match="1 results for 2 events"):
        batch([{"n": 1}, {"n": 2}])


@pytest.mark.parametrize("wrong", [{"e0": 1, "e1": 2}, "ab", None, {1, 2}])
def test_what_a_batch_returns_is_checked_before_it_is_kept(wrong: Any) -> None:
    loaded = LoadedModel("m", "m", lambda _payload: 1, lambda _payloads: wrong)
    batch = present(cached(loaded, entries=5, ttl_s=60, ignore=[]).predict_batch)
    for _ in range(2):
        with pytest.raises(WrongResultsError, match="not a list of results"):
            batch([{"n": 1}, {"n": 2}])


def test_the_oldest_go_when_there_are_too_many_and_all_go_with_time() -> None:
    model = Counting()
    predict = front(model, entries=2).predict
    for number in (1, 2, 3, 1):
        predict({"n": number})
    assert model.calls == 4
    model = Counting()
    predict = front(model, ttl_s=1e-9).predict
    predict({})
    predict({})
    assert model.calls == 2


def test_equal_events_at_the_same_time_are_all_asked_for() -> None:
    met = threading.Barrier(2, timeout=120)
    loaded = LoadedModel("m", "m", lambda _payload: met.wait())
    predict = cached(loaded, entries=1, ttl_s=60, ignore=[]).predict
    threads = [threading.Thread(target=predict, args=({},)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert isinstance(predict({}), Cached)


def test_payloads_of_any_kind_are_told_apart() -> None:
    """Those of MessagePack, too: bytes, and keys that are no texts."""
    model = Counting()
    predict = front(model, entries=100).predict
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    payloads: list[Any] = [[], [1], "1", {"a": b"\x01"}, {"a": b"\x02"}, {1: "x"}, {"1": "x"}, [b"\x01"]]
    payloads += [{"a": value} for value in (None, math.nan, math.inf, -math.inf, noon, noon.isoformat(), "null")]
    assert [predict(payload) for payload in payloads] == [{"call": n + 1} for n in range(len(payloads))]
    assert [predict(payload) for payload in payloads] == [Cached({"call": n + 1}) for n in range(len(payloads))]
    assert predict({"a": b"\x01", "event_id": "2"}) == Cached({"call": 4})
