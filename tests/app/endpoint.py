"""A consumer in this process, with its endpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from infertool.app import ConsumerApp, PublishSettings
from infertool.app.monitoring import monitored
from infertool.settings.tree import TelemetrySettings
from infertool.telemetry.signals import Signal
from tests.app.test_embedding import settings_of
from tests.bus.conftest import Bus
from tests.support.prometheus import fetch_json
from tests.support.running import Running


@contextmanager
def app_of(
    bus: Bus, observe: Callable[[Signal], None] | None = None, **changes: Any
) -> Iterator[tuple[ConsumerApp, str]]:
    """Run a consumer in this process, and yield it with the URL of its endpoint."""
    telemetry = TelemetrySettings(metrics="127.0.0.1:0", stuck_after_s=changes.pop("stuck_after_s", 300.0))
    publish = PublishSettings(mode=changes.pop("mode", "phoenix"))
    model = changes.pop("model", "")
    settings = replace(settings_of(bus, **changes), telemetry=telemetry, publish=publish)
    if model:
        settings = replace(settings, model=replace(settings.model, spec=model))
    app = ConsumerApp(settings, observers=[observe] if observe else ())
    with monitored(settings, app) as monitor:
        assert monitor is not None
        with app:
            yield app, f"http://{monitor.address}"


def conditions(url: str) -> dict[str, bool]:
    return {each["name"]: each["ok"] for each in fetch_json(url + "?verbose")["conditions"]}


def url_of(consumer: Running) -> str:
    """Return the endpoint's URL, from the line that `-o json` prints first."""
    assert consumer.process.stdout
    ready = json.loads(consumer.process.stdout.readline())
    assert ready["event"] == "metrics"
    return str(ready["url"])
