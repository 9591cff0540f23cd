from __future__ import annotations

from infertool.consumer.attempt import Attempts, Decoding, Event, Failure, Preparation
from infertool.errors import ModelUnavailableError
from tests.consumer.harness import failure_of
from tests.support.messages import message

CRASHED = Failure("crash", "CrashLoop", "twice")


def test_a_further_try_gets_a_fresh_payload() -> None:
    seen = []

    def predict(payload: dict[str, object]) -> object:
        seen.append(dict(payload))
        payload.clear()
        raise ValueError("again")

    attempt = Attempts(predict, Preparation(Decoding(100), lambda _event: None))
    event = Event(message(b'{"n": 1}'), "e")
    assert failure_of(attempt(event)).retryable
    assert failure_of(attempt(event)).retryable
    assert seen == [{"n": 1}, {"n": 1}]
    assert event.attempts == 2


def test_the_guard_is_asked_once_about_redelivered_events_that_can_be_decoded() -> None:
    asked = []

    def on_redelivered(event: Event) -> None:
        asked.append(event.event_id)

    attempt = Attempts(lambda _payload: 1, Preparation(Decoding(100), on_redelivered))
    redelivered = Event(message(b'{"event_id": "own"}', redelivered=True), "by-message")
    attempt(redelivered)
    attempt(redelivered)
    attempt(Event(message(b'{"event_id": "first"}'), "fresh"))
    attempt(Event(message(b"poison", redelivered=True), "poison"))
    assert asked == ["own"]


def test_a_crash_loop_is_not_tried_and_bears_its_own_id() -> None:
    attempt = Attempts(lambda _payload: 1 / 0, Preparation(Decoding(100), lambda _event: CRASHED))
    outcome = attempt(Event(message(b'{"event_id": "own"}', redelivered=True), "by-message"))
    assert outcome.failure is CRASHED
    assert outcome.event.event_id == "own"


def test_a_model_that_is_unavailable_says_how_long_to_hold() -> None:
    def predict(_payload: object) -> object:
        raise ModelUnavailableError("away", retry_after_s=2.5)

    attempt = Attempts(predict, Preparation(Decoding(100), lambda _event: None))
    assert attempt(Event(message(), "e")).failure == Failure(
        "infer", "ModelUnavailableError", "away", retryable=True, hold_s=2.5
    )
