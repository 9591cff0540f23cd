"""The meter: latencies of a run by second."""

from __future__ import annotations

import threading

from infertool.load.tally import Measure, Meter
from infertool.telemetry.latencies import Latencies


def test_an_interval_ends_and_totals_go_on() -> None:
    meter = Meter()
    meter.add(Measure.SLIP, [0.001, 0.002])
    first = meter.cut()
    meter.add(Measure.SLIP, [0.003])
    meter.add(Measure.E2E, [0.5])
    second = meter.cut()
    assert (set(first), set(second)) == ({Measure.SLIP}, {Measure.SLIP, Measure.E2E})
    assert first[Measure.SLIP].percentiles().count == 2
    assert second[Measure.SLIP].percentiles().count == 1
    totals = meter.totals()
    assert totals[Measure.SLIP].count == 3
    assert Measure.SEND not in totals


def test_late_times_belong_to_their_own_second() -> None:
    meter = Meter()
    meter.add(Measure.SEND, [0.01], second=3)
    meter.add(Measure.SEND, [0.02] * 2, second=4)
    assert meter.cut(3)[Measure.SEND].count == 1
    meter.add(Measure.SEND, [0.03], second=3)
    assert meter.cut(4)[Measure.SEND].count == 3
    assert meter.totals()[Measure.SEND].count == 4


def test_latencies_of_other_processes_are_merged() -> None:
    meter, other = Meter(), Meter()
    other.add(Measure.SLIP, [0.2] * 5)
    for (second, measure), latencies in other.cut_seconds().items():
        meter.merge(second, measure, Latencies.decode(latencies.encode()))
    meter.add(Measure.SLIP, [0.1])
    meter.cut()
    assert meter.totals()[Measure.SLIP].count == 6


def test_no_sample_is_lost_between_threads() -> None:
    meter = Meter()
    begin = threading.Barrier(5)

    def measure() -> None:
        begin.wait()
        for _ in range(200):
            meter.add(Measure.SLIP, [0.001] * 10)

    threads = [threading.Thread(target=measure) for _ in range(4)]
    for thread in threads:
        thread.start()
    begin.wait()
    cut = 0
    while any(thread.is_alive() for thread in threads):
        interval = meter.cut()
        cut += interval[Measure.SLIP].count if interval else 0
    interval = meter.cut()
    cut += interval[Measure.SLIP].count if interval else 0
    assert cut == meter.totals()[Measure.SLIP].count == 8000
