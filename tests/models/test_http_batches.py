"""Batches to a model server: arrays, errors of single events, and servers that take fewer at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from infertool.consumer.worker import Threads
from infertool.errors import InferenceError
from infertool.models import server_batches
from infertool.models.port import LoadedModel
from tests.models.test_http import EVENT, failure, kind
from tests.support.modelserver import ModelServer, Reply, answer, reply
from tests.support.present import present


@pytest.mark.parametrize(
    ("asked", "settings", "in_batches"),
    [(None, {}, False), (True, {}, True), (None, {"batches": True}, True), (False, {"batches": True}, False)],
)
def test_a_server_gets_arrays_only_if_someone_asked_for_batches(
    server: ModelServer,
    opened: Callable[..., LoadedModel],
    asked: bool | None,
    settings: dict[str, bool],
    in_batches: bool,
) -> None:
    assert Threads(opened(server.url, **settings), in_batches=asked).in_batches is in_batches


def test_a_batch_is_an_array_that_is_answered_with_an_array(
    server: ModelServer, opened: Callable[..., LoadedModel]
) -> None:
    server.handler = lambda request: answer([event["n"] * 2 for event in request.json])
    model = opened(server.url)
    assert present(model.predict_batch)([{"n": 1}, {"n": 2}, {"n": 3}]) == [2, 4, 6]
    assert len(server.requests) == 1


def parts(*given: tuple[int, Any]) -> Reply:
    body = json.dumps([{"status": status, "body": body} for status, body in given])
    return reply(body.encode(), "207 Multi-Status")


def test_events_of_a_batch_fail_alone_where_the_server_says_which(
    server: ModelServer, opened: Callable[..., LoadedModel]
) -> None:
    problem = {"title": "Refused", "status": 422, "detail": "no amount"}
    server.handler = lambda _request: parts(
        (200, {"n": 0}),
        (201, [1]),
        (422, problem),
        (500, {"error": "a bug"}),
        (429, {"retry_after_s": 7}),
        (503, None),
        (200, {"status": 404, "title": "a result"}),
    )
    results = present(opened(server.url).predict_batch)([EVENT] * 7)
    assert server.requests[0].headers["prefer"] == "multi-status"
    assert len(server.requests) == 1
    assert [each if not isinstance(each, InferenceError) else kind(each) for each in results] == [
        {"n": 0},
        [1],
        "refused",
        "tried again",
        "held",
        "held",
        {"status": 404, "title": "a result"},
    ]
    assert str(results[2]) == f"{server.url} answered 422: no amount"
    assert (results[4].retry_after_s, results[5].retry_after_s) == (7, 0.5)


@pytest.mark.parametrize("part", [1, None, [], {"body": 1}, {"status": "200"}, {"status": True}])
def test_a_part_without_a_status_is_a_failed_try_of_its_event(
    server: ModelServer, opened: Callable[..., LoadedModel], part: Any
) -> None:
    server.handler = lambda _request: reply(
        json.dumps([{"status": 200, "body": "good"}, part]).encode(), "207 Multi-Status"
    )
    good, broken = present(opened(server.url).predict_batch)([EVENT, EVENT])
    assert good == "good"
    assert kind(broken) == "tried again"
    assert "a part that has no status" in str(broken)


def test_an_event_alone_in_a_207_is_one_that_the_circuit_breaker_counts(
    server: ModelServer, opened: Callable[..., LoadedModel]
) -> None:
    server.handler = lambda _request: parts((500, "a bug"))
    model = opened(server.url, circuit_failures=2)
    for meaning in ("tried again", "tried again", "held"):
        with pytest.raises(InferenceError) as caught:
            present(model.predict_batch)([EVENT])
        assert kind(caught.value) == meaning
    assert len(server.requests) == 2


@pytest.mark.parametrize("told", ["no amount", {"message": "no amount", "code": 7}, ["no amount"]])
def test_the_field_that_marks_a_failed_event(
    server: ModelServer, opened: Callable[..., LoadedModel], told: str | dict[str, Any] | list[str]
) -> None:
    results = [{"class": "A", "error": None}, {"error": told, "retryable": False}, {"error": told}, 4, {"error": ""}]
    server.handler = lambda request: answer(results if isinstance(request.json, list) else results[1])
    model = opened(server.url, error_field="error")
    good, refused, tried, number, empty = present(model.predict_batch)([EVENT] * 5)
    assert (good, number, empty) == (results[0], 4, {"error": ""})
    assert (kind(refused), kind(tried)) == ("refused", "tried again")
    assert "answered with an error: " in str(refused)
    assert "no amount" in str(refused)
    with pytest.raises(InferenceError, match="no amount"):
        model.predict(EVENT)
    assert present(opened(server.url).predict_batch)([EVENT] * 5) == results, "without the setting it is a result"


@pytest.mark.parametrize(
    ("refusal", "sizes"),
    [
        (reply(b"inference request batch-size must be <= 3 for 'm'", "400 Bad Request"), [8, 3, 3, 2]),
        (reply(b"a batch has at most 3 events, not 8", "400 Bad Request"), [8, 3, 3, 2]),
        (reply(b"", "413 Content Too Large"), [8, 4, 2, 2, 2, 2]),
    ],
)
def test_a_server_that_takes_fewer_gets_parts_from_then_on(
    server: ModelServer, opened: Callable[..., LoadedModel], refusal: Reply, sizes: list[int]
) -> None:
    server.handler = lambda request: refusal if len(request.json) > 3 else answer([each["n"] for each in request.json])
    model = opened(server.url)
    batch = [{"n": n} for n in range(8)]
    assert present(model.predict_batch)(batch) == list(range(8))
    assert [len(each.json) for each in server.requests] == sizes
    server.requests.clear()
    assert present(model.predict_batch)(batch) == list(range(8))
    assert len(server.requests) == -(-8 // max(sizes[-2:]))


def test_one_event_that_is_too_large_does_not_keep_batches_small(
    server: ModelServer, opened: Callable[..., LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_batches, "GROW_AFTER", 2)
    too_large = reply(b"", "413 Content Too Large")
    server.handler = lambda request: (
        too_large if any("large" in each for each in request.json) else answer([each["n"] for each in request.json])
    )
    predict_batch = present(opened(server.url).predict_batch)
    batch: list[dict[str, Any]] = [{"n": n} for n in range(8)]
    with pytest.raises(InferenceError, match="413"):
        predict_batch([*batch[:4], {"n": 4, "large": True}, *batch[5:]])
    for _ in range(3):
        assert predict_batch(batch) == list(range(8))
    server.requests.clear()
    assert predict_batch(batch) == list(range(8))
    assert len(server.requests) == 1


def test_a_batch_that_is_refused_for_another_reason_is_not_made_smaller(
    server: ModelServer, opened: Callable[..., LoadedModel]
) -> None:
    server.handler = lambda _request: reply(b"no amount", "422 Refused")
    with pytest.raises(InferenceError, match="no amount"):
        present(opened(server.url).predict_batch)([EVENT] * 8)
    server.handler = lambda _request: reply(b"", "413 Content Too Large")
    assert kind(failure(opened(server.url))) == "refused"
    assert len(server.requests) == 2


@pytest.mark.parametrize(("given", "words"), [([1], "with 1 results"), ({"results": [1, 2]}, "with no array")])
def test_a_batch_that_is_answered_otherwise_fails(
    server: ModelServer, opened: Callable[..., LoadedModel], given: list[int] | dict[str, list[int]], words: str
) -> None:
    server.handler = lambda _request: answer(given)
    with pytest.raises(InferenceError, match=words):
        present(opened(server.url).predict_batch)([EVENT, EVENT])
