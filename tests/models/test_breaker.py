"""The circuit breaker: what opens it, the single probe, and failures of the event or of the server."""

from __future__ import annotations

import threading
import time

import pytest

from infertool.errors import InferenceError, ModelUnavailableError
from infertool.models.circuit_breaker import SHORT_HOLD_S, SPREAD_S, Breaker

WAIT_S = 1000.0


class Circuit:
    """A breaker, and what it told."""

    def __init__(self, failures: int = 3) -> None:
        self.told: list[str] = []
        self.reasons: list[str] = []
        self.breaker = Breaker("m", failures=failures, wait_s=WAIT_S, on_circuit=self._note)

    def _note(self, address: str, state: str, reason: str = "", retry_in_s: float = 0.0) -> None:
        self.told.append(state)
        self.reasons.append(reason)

    def good(self) -> object:
        return self.breaker.call(lambda: "fine")

    def fail(self, error: BaseException, *, events: int = 1) -> BaseException:
        """Make a request that fails; return what the caller sees."""

        def request() -> object:
            raise error

        with pytest.raises(type(error) if not isinstance(error, InferenceError) else InferenceError) as caught:
            self.breaker.call(request, events=events)
        return caught.value

    def open(self) -> None:
        for _ in range(3):
            self.fail(InferenceError("500"))
        assert self.told[-1] == "open"

    def wait(self) -> None:
        """Let its time be over."""
        self.breaker._open_until = time.monotonic()


def held(error: BaseException) -> bool:
    return isinstance(error, ModelUnavailableError)


def test_failures_in_a_row_open_it_and_nothing_passes() -> None:
    circuit = Circuit()
    for _ in range(2):
        assert not held(circuit.fail(InferenceError("500")))
    circuit.good()
    circuit.open()
    with pytest.raises(ModelUnavailableError, match="500") as caught:
        circuit.good()
    assert 0 < caught.value.retry_after_s <= WAIT_S + SPREAD_S
    assert circuit.told == ["closed", "open"]
    assert circuit.reasons[-1] == "500"


def test_refused_events_do_not_open_it() -> None:
    circuit = Circuit()
    for _ in range(10):
        circuit.fail(InferenceError("422", retryable=False))
    assert circuit.good() == "fine"


def test_a_server_that_says_how_long_opens_it_at_once_for_that_long() -> None:
    circuit = Circuit()
    error = circuit.fail(ModelUnavailableError("503", retry_after_s=60))
    assert isinstance(error, ModelUnavailableError)
    assert 59 < error.retry_after_s <= 60 + SPREAD_S
    assert circuit.told == ["closed", "open"]


def test_an_unavailable_server_holds_events_before_the_circuit_opens() -> None:
    circuit = Circuit()
    error = circuit.fail(ModelUnavailableError("refused", retry_after_s=0.0))
    assert held(error)
    assert isinstance(error, ModelUnavailableError)
    assert SHORT_HOLD_S <= error.retry_after_s <= SHORT_HOLD_S + SPREAD_S
    assert circuit.told == ["closed"]


def test_a_good_probe_closes_it() -> None:
    circuit = Circuit()
    circuit.open()
    circuit.wait()
    assert circuit.good() == "fine"
    assert circuit.good() == "fine"
    assert circuit.told == ["closed", "open", "half-open", "closed"]
    for _ in range(2):
        circuit.fail(InferenceError("500"))
    assert circuit.good() == "fine", "failures are counted anew"


def test_a_bad_probe_opens_it_again_and_costs_its_event_a_try() -> None:
    circuit = Circuit()
    circuit.open()
    circuit.wait()
    assert not held(circuit.fail(InferenceError("500 again")))
    assert circuit.told[-2:] == ["half-open", "open"]
    with pytest.raises(ModelUnavailableError, match="500 again"):
        circuit.good()


def test_a_probe_of_an_unavailable_server_costs_nothing() -> None:
    circuit = Circuit()
    circuit.open()
    circuit.wait()
    assert held(circuit.fail(ModelUnavailableError("refused", retry_after_s=0.0)))
    assert circuit.told[-1] == "open"


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt()])
def test_a_probe_that_ends_in_any_other_way_does_not_leave_it_half_open(error: ValueError | KeyboardInterrupt) -> None:
    circuit = Circuit()
    circuit.open()
    circuit.wait()
    circuit.fail(error)
    circuit.wait()
    assert circuit.good() == "fine"


def test_one_probe_passes_and_the_others_wait() -> None:
    circuit = Circuit()
    circuit.open()
    circuit.wait()
    probing, go = threading.Event(), threading.Event()

    def probe() -> str:
        probing.set()
        assert go.wait(120)
        return "back"

    thread = threading.Thread(target=circuit.breaker.call, args=(probe,))
    thread.start()
    assert probing.wait(120)
    for _ in range(5):
        with pytest.raises(ModelUnavailableError) as caught:
            circuit.good()
        assert caught.value.retry_after_s <= SHORT_HOLD_S + SPREAD_S
    go.set()
    thread.join(120)
    assert circuit.good() == "fine"


def test_calls_that_were_under_way_when_it_opened_are_held_if_they_fail_and_change_nothing_if_they_do_not() -> None:
    circuit = Circuit()
    under_way = threading.Barrier(3, timeout=120)
    opened = threading.Event()
    seen: list[object] = []

    def late(outcome: object) -> None:
        def request() -> object:
            under_way.wait()
            assert opened.wait(120)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        try:
            seen.append(circuit.breaker.call(request))
        except InferenceError as error:
            seen.append(held(error))

    threads = [threading.Thread(target=late, args=(outcome,)) for outcome in (InferenceError("500"), "late")]
    for thread in threads:
        thread.start()
    under_way.wait()
    circuit.open()
    opened.set()
    for thread in threads:
        thread.join(120)
    assert sorted(map(str, seen)) == ["True", "late"]
    with pytest.raises(ModelUnavailableError):
        circuit.good()


def test_a_failed_batch_does_not_change_the_state() -> None:
    circuit = Circuit(failures=1)
    assert not held(circuit.fail(InferenceError("500"), events=2))
    assert circuit.good() == "fine"
    circuit.fail(InferenceError("500"))
    circuit.wait()
    circuit.fail(InferenceError("500"), events=2)  # the probe
    assert circuit.told == ["closed", "open", "half-open"]
    assert circuit.good() == "fine"  # one of its halves is the next
