"""The statistics of several processes, summed up as if they were one."""

from __future__ import annotations

from dataclasses import replace

from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.telemetry import signals
from infertool.telemetry.stats import Report, Stats, joint, summed


def report(*signals: signals.Signal) -> Report:
    stats = Stats()
    for signal in signals:
        stats(signal)
    return stats.report()


def broker(state: ConnectionState) -> signals.ConnectionChanged:
    return signals.ConnectionChanged("broker", ConnectionEvent(state, "stomp://h", 1))


def test_the_sum_of_parts_is_what_one_process_would_have_counted() -> None:
    first: list[signals.Signal] = [
        signals.Received(3, 1),
        signals.Predicted([0.1, 0.2, 0.3]),
        signals.Succeeded([0.2, 0.3, 0.4]),
    ]
    second: list[signals.Signal] = [
        signals.Received(2, 0),
        signals.Predicted([0.9]),
        signals.Failed("e", "infer", "E", "x", 1),
        signals.DeadLettered([1.5]),
    ]
    parts = [report(*first), report(*second)]
    whole = Stats()
    for signal in first + second:
        whole(signal)
    found, expected = joint(parts, parts), whole.snapshot()
    assert found.counts == expected.counts
    assert found.latency_ms == expected.latency_ms
    assert found.processing_ms == expected.processing_ms
    assert list(found.summary()) == list(expected.summary())


def test_the_rate_runs_from_the_first_delivery_anywhere_to_the_last_settlement_anywhere() -> None:
    early, late = (
        replace(
            Stats().report(),
            counts={"succeeded": 50, "dead_lettered": 0},
            first_delivery=times[0],
            last_settlement=times[1],
        )
        for times in ((10.0, 12.0), (11.0, 20.0))
    )
    assert joint([early, late], []).rate == 10.0


def test_connections_show_the_number_of_processes_in_each_state() -> None:
    up, down = report(broker(ConnectionState.CONNECTED)), report(broker(ConnectionState.LOST))
    assert joint([up], [up, up]).links == {"broker": "connected"}
    assert joint([up], [up, down, up]).links == {"broker": "connected 2 lost 1"}
    assert joint([up], [up, report()]).links == {"broker": "connected"}


def test_unconfirmed_pushes_are_summed_and_the_oldest_is_shown() -> None:
    running = [report(signals.Unconfirmed(3, 12.0)), report(signals.Unconfirmed(2, 40.0)), report()]
    found = joint([*running, report(signals.Unconfirmed(9, 99.0))], running)
    assert (found.unconfirmed, found.oldest_push_s) == (5, 40.0)


def test_concurrency_is_summed_and_the_largest_batch_size_is_shown() -> None:
    parts = [report(signals.Tuned("concurrency", n), signals.Tuned("batch_size", 10 * n)) for n in (3, 5)]
    assert joint(parts, []).tuned == {"concurrency": 8, "batch_size": 50}


def test_of_several_circuits_the_worst_is_shown() -> None:
    closed, opened, half_open = (report(signals.Circuit("m", state)) for state in ("closed", "open", "half-open"))
    assert joint([closed, half_open], []).circuit == "half-open"
    assert joint([closed, opened, half_open], []).circuit == "open"
    assert joint([report()], []).circuit == "none"
    assert joint([closed, opened], []).counts["circuit_opened"] == 1


def test_processes_that_followed_each_other_are_one() -> None:
    """Current figures are those of the last process: a circuit that was open in a dead process is not open any more."""
    one = summed(
        [
            report(signals.Received(1, 0), signals.Circuit("m", "open")),
            report(signals.Received(2, 0), signals.Circuit("m", "closed")),
        ]
    )
    assert (one.counts["received"], one.circuit) == (3, "closed")


def test_before_the_first_report_all_is_zero() -> None:
    assert joint([], []).summary() == Stats().snapshot().summary()
