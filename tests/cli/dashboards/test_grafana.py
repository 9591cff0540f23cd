"""The Grafana dashboard: what it asks, a real Prometheus answers after a run."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from infertool.cli.dashboards.grafana import dashboard
from infertool.telemetry.metrics import DEFINITIONS
from tests.app.conftest import embedded_bus, session_hub
from tests.app.endpoint import url_of
from tests.bus.conftest import Bus
from tests.support.prometheus import Prometheus
from tests.support.running import infertool

__all__ = ["embedded_bus", "session_hub"]
LONG = 120
# Without trouble there is no reconnect, and so on; these must answer all the same.
PANELS = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]


def filled_in(expression: str) -> str:
    return expression.replace("$queue", ".*").replace("$__rate_interval", "1m")


def test_it_is_printed_as_grafana_imports_it() -> None:
    done = infertool("dashboards", "grafana")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == dashboard()


def test_panels_have_places_and_ids_of_their_own() -> None:
    panels: list[dict[str, Any]] = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert all(panel["description"].endswith(".") for panel in PANELS)


def test_each_metric_that_it_names_exists() -> None:
    names = {each.full_name for each in DEFINITIONS.values()}
    for expression in EXPRESSIONS:
        assert any(name in expression for name in names), expression


@pytest.mark.long
@pytest.mark.prometheus
def test_prometheus_answers_every_expression_with_data(embedded_bus: Bus, tmp_path: Path) -> None:
    model = "sim:?min_ms=5&max_ms=10&failure_rate=0.1"
    consumer = embedded_bus.consume("--metrics", "0", "--concurrency", "1", "--window", "10", model=model)
    url = url_of(consumer)
    with Prometheus(tmp_path / "prometheus", [url.removeprefix("http://")]) as prometheus:
        prometheus.wait_for("infertool_ready", lambda value: value == 1)
        left = {filled_in(expression) for expression in EXPRESSIONS}
        deadline = time.monotonic() + LONG
        while left:
            # Messages wait all the time, and some fail.
            embedded_bus.send(200, poison=20)
            left -= {expression for expression in left if prometheus.query(expression)}
            assert time.monotonic() < deadline, left
        consumer.kill()
