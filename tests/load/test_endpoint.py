"""`loadgen --metrics`: what a scrape sees is what the report says; health follows connections and the run's clock."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from infertool.brokers.memory.server import Server
from infertool.errors import ListenError
from infertool.load.arrivals import Planned
from infertool.load.endpoint import LoadEndpoint
from infertool.load.headers import EnvelopeOptions
from infertool.load.options import LoadOptions
from infertool.load.run import Listeners, LoadRun
from infertool.load.sides import Sides
from infertool.load.tally import Measure, Meter, Tally
from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.settings import Settings
from tests.support.brokers import settings
from tests.support.embedded import EmbeddedBroker
from tests.support.prometheus import fetch, promtool
from tests.support.running import CREDENTIALS, LONG, Running

_numbers = itertools.count(1)


@pytest.fixture
def memory() -> Iterator[Server]:
    with Server(f"load-endpoint-{next(_numbers)}", login=("admin", "admin")) as server:
        yield server


def samples(text: str) -> dict[tuple[str, str], float]:
    """Return the values by name and by the value of the only label."""
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels
    }


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.prometheus
def test_a_scrape_sees_what_the_report_says(memory: Server) -> None:
    asked = LoadOptions(
        planned=Planned(qps=200, duration_s=1.0, warmup_s=0.5),
        envelope=EnvelopeOptions("q", persistent=False, broker_url=memory.url),
        confirm=True,
    )
    run = LoadRun(Settings(broker=settings(memory.url)), asked, Listeners(), {})
    endpoint = run.serve("0")
    try:
        assert fetch(f"{endpoint.url}/readyz")[0] == HTTPStatus.SERVICE_UNAVAILABLE
        finished = run.run()
        assert fetch(f"{endpoint.url}/livez") == (HTTPStatus.OK, "ok\n")
        text = fetch(f"{endpoint.url}/metrics")[1]
    finally:
        endpoint.close()
    found = samples(text)
    counts = finished.counts
    assert counts.sent == 200
    assert {name: found["infertool_load_events_total", name] for name in ("planned", "sent", "confirmed")} == {
        "planned": counts.planned, "sent": counts.sent, "confirmed": counts.confirmed,
    }  # fmt: skip
    assert found["infertool_load_warmup_events_total", "sent"] == 100
    for measure in (Measure.SLIP, Measure.SEND):
        assert found["infertool_load_latency_seconds_count", measure] == finished.histograms[measure].count
    checked = promtool("check", "metrics", text=text)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("processes", [(), ("--processes", "2")], ids=["one", "two"])
def test_the_command_serves_while_it_runs(tmp_path: Path, processes: tuple[str, ...]) -> None:
    broker = EmbeddedBroker().start()
    try:
        load = Running(
            tmp_path, "loadgen", "--broker", broker.url, "--qps", "50", "--metrics", "0", "-o", "json", *processes,
            **CREDENTIALS,
        )  # fmt: skip
        load.wait_for("metrics and health at")
        url = re.findall(r"http://[\d.]+:\d+", load.log.read_text())[0]
        wait_until(lambda: samples(fetch(f"{url}/metrics")[1])["infertool_load_events_total", "sent"] >= 20)
        assert fetch(f"{url}/readyz") == (HTTPStatus.OK, "ok\n")
        broker.stop()
        wait_until(lambda: fetch(f"{url}/readyz")[0] == HTTPStatus.SERVICE_UNAVAILABLE)
        # A broker that is away is no reason for a restart.
        assert fetch(f"{url}/livez")[0] == HTTPStatus.OK
        load.terminate()
        assert load.finish()["sent"] >= 20
    finally:
        broker.stop()


def test_a_run_that_does_not_count_its_seconds_is_not_live() -> None:
    ticked_at: list[float | None] = [None]
    sides, tally = Sides(), Tally()
    endpoint = LoadEndpoint("0", tally=tally, meter=Meter(), sides=sides, ticked_at=lambda: ticked_at[0])
    try:
        assert fetch(f"{endpoint.url}/livez")[0] == HTTPStatus.OK
        ticked_at[0] = time.monotonic() - 31
        status, text = fetch(f"{endpoint.url}/livez")
        assert status == HTTPStatus.SERVICE_UNAVAILABLE
        assert text.startswith("seconds: last counted 31")
        # What a dead process did not send is taken back from the totals; a counter never goes back.
        tally.add(unsent=5)
        assert samples(fetch(f"{endpoint.url}/metrics")[1])["infertool_load_events_total", "unsent"] == 5
        tally.add(unsent=-3)
        assert samples(fetch(f"{endpoint.url}/metrics")[1])["infertool_load_events_total", "unsent"] == 5
        for number, (state, up) in enumerate(((ConnectionState.CONNECTED, 1), (ConnectionState.LOST, 0)), 1):
            sides.changed("broker", ConnectionEvent(state, "a:1", number))
            assert samples(fetch(f"{endpoint.url}/metrics")[1])["infertool_connection_up", "broker"] == up
        assert fetch(f"{endpoint.url}/readyz") == (HTTPStatus.SERVICE_UNAVAILABLE, "broker: down\n")
        with pytest.raises(ListenError):
            LoadEndpoint(str(endpoint.port), tally=tally, meter=Meter(), sides=sides, ticked_at=lambda: None)
    finally:
        endpoint.close()
