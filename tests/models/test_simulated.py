"""The simulated model: its defaults, its parameters, and its seed."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from types import MethodType
from typing import cast

import pytest

from infertool.errors import InferenceError, ModelLoadError
from infertool.models.loader import load
from infertool.models.port import LoadedModel, Payload
from infertool.models.simulated import SimulatedModel

AT_ONCE = "sim:?min_ms=0&max_ms=0"


def outcome(model: LoadedModel, payload: Payload) -> object:
    try:
        return tuple(model.predict(payload).values())
    except InferenceError:
        return "failed"


def outcomes(model: LoadedModel, count: int) -> list[object]:
    return [outcome(model, {"request_id": f"r-{n}"}) for n in range(count)]


def test_defaults_are_the_reference_model() -> None:
    model = cast("MethodType", load("sim:").predict).__self__
    assert isinstance(model, SimulatedModel)
    assert (model.min_ms, model.max_ms, model.failure_rate, model.retryable) == (100, 500, 0.05, True)
    assert (model.classes, model.min_confidence, model.max_confidence) == (("A", "B", "C"), 0.7, 0.99)


def test_results_stay_in_their_ranges_and_use_all_of_them() -> None:
    predict = load(f"{AT_ONCE}&failure_rate=0&classes=X,Y&min_confidence=0.2&max_confidence=0.4").predict
    results = [predict({}) for _ in range(400)]
    assert {result["class"] for result in results} == {"X", "Y"}
    assert all(0.2 <= result["confidence"] <= 0.4 for result in results)
    assert max(result["confidence"] for result in results) > 0.35


@pytest.mark.parametrize("seed", ["", "&seed=1"])
def test_the_failure_rate_is_kept(seed: str) -> None:
    failures = outcomes(load(f"{AT_ONCE}&failure_rate=0.05{seed}"), 4000).count("failed")
    assert 120 < failures < 280


def test_always_and_never_failing() -> None:
    assert set(outcomes(load(f"{AT_ONCE}&failure_rate=1"), 50)) == {"failed"}
    assert "failed" not in outcomes(load(f"{AT_ONCE}&failure_rate=0"), 50)


@pytest.mark.parametrize(("query", "retryable"), [("", True), ("&retryable=true", True), ("&retryable=false", False)])
def test_failures_say_whether_a_retry_can_help(query: str, retryable: bool) -> None:
    with pytest.raises(InferenceError) as caught:
        load(f"{AT_ONCE}&failure_rate=1{query}").predict({})
    assert caught.value.retryable is retryable


def test_a_seeded_outcome_depends_on_the_event_and_not_on_order_or_thread() -> None:
    payloads = [{"request_id": f"r-{n}"} for n in range(200)]
    first = {p["request_id"]: outcome(load(f"{AT_ONCE}&seed=7&failure_rate=0.3"), p) for p in payloads}
    model = load(f"{AT_ONCE}&seed=7&failure_rate=0.3")
    random.shuffle(payloads)
    with ThreadPoolExecutor(8) as pool:
        second = dict(
            zip((p["request_id"] for p in payloads), pool.map(lambda p: outcome(model, p), payloads), strict=True)
        )
    assert first == second
    assert len(set(first.values())) > 100


def test_another_seed_gives_other_outcomes() -> None:
    assert outcomes(load(f"{AT_ONCE}&seed=1"), 50) != outcomes(load(f"{AT_ONCE}&seed=2"), 50)


def test_a_seed_works_without_request_id_by_content() -> None:
    model = load(f"{AT_ONCE}&seed=1&failure_rate=0")
    assert model.predict({"text": "a"}) == model.predict({"text": "a"})
    assert len({model.predict({"text": str(n)})["confidence"] for n in range(50)}) > 40


def test_no_wait_means_no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _s: pytest.fail("slept"))
    load(f"{AT_ONCE}&failure_rate=0").predict({})


def test_waits_are_drawn_between_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    predict = load("sim:?min_ms=20&max_ms=40&failure_rate=0").predict
    for _ in range(200):
        predict({})
    assert 0.020 <= min(waits) < 0.025
    assert 0.035 < max(waits) <= 0.040


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("?min_m=1", "unknown parameter 'min_m'; did you mean 'min_ms'?"),
        ("?zzz=1", "known: min_ms, max_ms"),
        ("?min_ms=-1", "min_ms is '-1'; expected milliseconds, 0 or more"),
        ("?min_ms=nan", "expected milliseconds"),
        ("?max_ms=inf", "expected milliseconds"),
        ("?min_ms=", "min_ms is ''"),
        ("?max_ms=50", "min_ms=100 is more than max_ms=50; give both"),
        ("?min_confidence=0.995", "min_confidence=0.995 is more than max_confidence=0.99"),
        ("?failure_rate=1.5", "expected a number from 0 to 1"),
        ("?retryable=maybe", "expected true or false"),
        ("?classes=A,,B", "expected names with commas"),
        ("min_ms=1", "write it like sim:?"),
    ],
)
def test_bad_parameters_say_what_is_expected(query: str, text: str) -> None:
    with pytest.raises(ModelLoadError) as caught:
        load(f"sim:{query}")
    assert text in str(caught.value)
    assert caught.value.spec == f"sim:{query}"
