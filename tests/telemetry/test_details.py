"""What is counted beside the totals: failures by type, connections, ages; and sums over processes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.telemetry import signals
from infertool.telemetry.details import MOST_TYPES, OTHER, DetailCounter, Details, ErrorTypes, joined
from infertool.telemetry.latencies import Latencies


@given(st.lists(st.sampled_from([f"E{n}" for n in range(40)] + [OTHER, ""]), max_size=400))
def test_error_types_are_bounded_and_no_failure_is_lost(names: list[str]) -> None:
    types = ErrorTypes()
    for count, name in enumerate(names, 1):
        types.add(name)
        found = types.counts()
        assert sum(found.values()) == count
        assert len(set(found) - {OTHER}) <= MOST_TYPES


def test_the_most_frequent_types_have_names_whatever_came_first() -> None:
    types = ErrorTypes()
    frequent = [f"Frequent{n}" for n in range(MOST_TYPES)]
    for n in range(30 * MOST_TYPES):
        types.add(f"Rare{n}")
        types.add(frequent[n % MOST_TYPES])
    assert set(types.counts()) == {*frequent, OTHER}


def test_a_long_or_hostile_type_is_cut() -> None:
    types = ErrorTypes()
    types.add('x"\n' * 10_000)
    [name] = types.counts()
    assert len(name) == 100


def link(side: str, state: ConnectionState, epoch: int) -> signals.ConnectionChanged:
    return signals.ConnectionChanged(side, ConnectionEvent(state, "stomp://h", epoch))


def test_connections_count_reconnects_by_side_and_when_they_changed() -> None:
    counter = DetailCounter()
    for epoch in (1, 2, 3):
        counter(link("broker", ConnectionState.CONNECTED, epoch))
        counter(link("broker", ConnectionState.LOST, epoch))
    counter(link("phoenix", ConnectionState.CONNECTED, 1))
    first = counter.details()
    counter(link("broker", ConnectionState.CONNECTING, 4))
    second = counter.details()
    assert first.reconnects == {"broker": 2, "phoenix": 0}
    assert second.link_since == first.link_since
    counter(link("broker", ConnectionState.CONNECTED, 4))
    assert counter.details().link_since["broker"] > first.link_since["broker"]


def test_ages_tell_how_far_a_producers_clock_is_ahead() -> None:
    counter = DetailCounter()
    assert counter.details().ahead_s is None
    counter(signals.Ages([2.0]))
    assert counter.details().ahead_s == 0.0
    counter(signals.Ages([-3.5, 1.0]))
    counter(signals.Ages([-1.0]))
    assert counter.details().ahead_s == 3.5
    assert Latencies.decode(counter.details().age).count == 4


def test_a_clock_that_was_set_right_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 6000.0
    monkeypatch.setattr("infertool.telemetry.details.time.monotonic", lambda: now)
    counter = DetailCounter()
    counter(signals.Ages([-9.0]))
    now += 60
    counter(signals.Ages([1.0]))
    assert counter.details().ahead_s == 9.0
    now += 60
    counter(signals.Ages([1.0]))
    assert counter.details().ahead_s == 0.0


def test_the_sum_of_parts_is_what_one_process_would_have_counted() -> None:
    failures = [signals.Failed(str(n), stage, kind, "", 1) for n, (stage, kind) in enumerate(
        [("infer", "ValueError"), ("decode", "NotJson"), ("infer", "ValueError"), ("infer", "KeyError")]
    )]  # fmt: skip
    parts, whole = [DetailCounter(), DetailCounter()], DetailCounter()
    told: list[signals.Signal] = [*failures, signals.Batch(3), signals.Batch(3), signals.ConfirmTimes([0.1, 0.2])]
    for n, signal in enumerate(told):
        parts[n % 2](signal)
        whole(signal)
    found = joined([part.details() for part in parts], [])
    expected = whole.details()
    assert found.failures == expected.failures == {("infer", "ValueError"): 2, ("decode", "NotJson"): 1,
                                                   ("infer", "KeyError"): 1}  # fmt: skip
    assert (found.batch_sizes, found.confirm) == (expected.batch_sizes, expected.confirm) == ({3: 2}, found.confirm)


def test_several_processes_have_a_bounded_number_of_types_and_no_count_goes_back() -> None:
    reports = [Details(failures={("infer", f"E{process}-{n}"): n for n in range(MOST_TYPES)}) for process in range(5)]
    before: Counter[tuple[str, str]] = Counter()
    for count in range(1, len(reports) + 1):
        found = Counter(joined(reports[:count], []).failures)
        assert len(set(found) - {("infer", OTHER)}) == MOST_TYPES
        assert found.total() == count * sum(range(MOST_TYPES))
        assert not before - found
        before = found


def test_calls_and_waits_for_the_model_are_noted() -> None:
    counter = DetailCounter()
    counter(signals.Ticks(None, 0.0, 0.0, 30.0))
    assert (counter.details().called_at, counter.details().held_until) == (None, None)
    counter(signals.Ticks(None, 0.0, 0.1, 30.0))
    counter(signals.Deferred("e", 100.0, "away"))
    counter(signals.Deferred("e", 1.0, "away"))
    counter(signals.Ticks(None, 0.0, 0.0, 30.0))
    found = counter.details()
    assert found.called_at
    assert found.held_until
    assert found.called_at < found.made_at < found.made_at + 50 < found.held_until
    assert joined([found, Details()], [found]).held_until == found.held_until
    assert joined([found, Details()], [Details()]).called_at is None


def test_states_are_those_of_the_running_processes() -> None:
    ended = Details(queue=signals.QueueState(dead_letters=1), link_since={"broker": 1.0}, received_at=9.0)
    running = Details(queue=signals.QueueState(dead_letters=2), link_since={"broker": 2.0}, received_at=4.0)
    found = joined([ended, running], [replace(running, queue=signals.QueueState()), running])
    assert (found.queue.dead_letters, found.link_since, found.received_at) == (2, {"broker": 2.0}, 9.0)


@pytest.mark.parametrize("signal", [signals.Warned("x"), signals.Flow(paused=True), signals.Pushed(3)])
def test_other_signals_are_nothing_to_it(signal: signals.Warned | signals.Flow | signals.Pushed) -> None:
    counter = DetailCounter()
    before = counter.details()
    counter(signal)
    assert replace(counter.details(), made_at=before.made_at) == before
