"""Liveness and readiness of running consumers: what turns them, and what never does."""

from __future__ import annotations

import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from infertool.app import ConsumerApp
from infertool.telemetry import health
from infertool.telemetry.signals import Received, Signal
from tests.app.endpoint import app_of, conditions, url_of
from tests.app.test_embedding import wait_for
from tests.bus.conftest import Bus
from tests.support.hub import HubProcess
from tests.support.prometheus import fetch, fetch_json
from tests.support.running import LONG


def settle_one(bus: Bus, app: ConsumerApp) -> None:
    """Have one event settled: from then on the reader delivers. Before, the starting thread may be the one to do it."""
    bus.send(1)
    wait_for(lambda: app.snapshot().settled == 1)


def test_a_consumer_is_live_then_ready_then_started(embedded_bus: Bus) -> None:
    with app_of(embedded_bus) as (app, url):
        assert fetch(f"{url}/livez") == (200, "ok\n")
        assert fetch(f"{url}/readyz")[0] == 503
        assert fetch(f"{url}/startupz")[0] == 503
        app.start()
        wait_for(lambda: fetch(f"{url}/readyz") == (200, "ok\n"))
        assert fetch(f"{url}/startupz") == (200, "ok\n")
        assert conditions(f"{url}/readyz") == dict.fromkeys(("broker", "phoenix", "model", "stopping"), True)
        app.stop()
        assert fetch(f"{url}/readyz")[0] == 503
        assert fetch(f"{url}/startupz") == (200, "ok\n")
        assert fetch(f"{url}/livez") == (200, "ok\n")


def test_a_server_that_is_away_makes_a_consumer_unready_and_never_dead(embedded_bus: Bus) -> None:
    hub = HubProcess().start()
    bus = replace(embedded_bus, hub=hub)
    with app_of(bus, stuck_after_s=0.5) as (app, url):
        app.start()
        wait_for(lambda: fetch(f"{url}/readyz")[0] == 200)
        hub.kill()
        wait_for(lambda: not conditions(f"{url}/readyz")["phoenix"])
        bus.send(300)
        wait_for(lambda: fetch_json(f"{url}/stats")["window"]["in_progress"])
        wait_for(lambda: (fetch_json(f"{url}/stats")["connections"]["phoenix"]["since_s"] or 0) > 3)
        assert fetch(f"{url}/livez") == (200, "ok\n")
        status, text = fetch(f"{url}/readyz")
        assert (status, text.partition(":")[0]) == (503, "phoenix")
        hub.start()
        wait_for(lambda: fetch(f"{url}/readyz")[0] == 200)
        wait_for(lambda: app.snapshot().settled == 300)
    hub.stop()


AWAY = """
from infertool import ModelUnavailableError

def predict(event):
    if not os.path.exists({end!r}):
        raise ModelUnavailableError("its server is away", retry_after_s=0.1)
"""
SLOW = """
def predict(event):
    while not os.path.exists({end!r}):
        time.sleep(0.05)
"""


@pytest.mark.parametrize("model", [AWAY, SLOW], ids=["away", "slow"])
def test_a_full_window_that_waits_for_the_model_is_live(embedded_bus: Bus, tmp_path: Path, model: str) -> None:
    """A model that holds its events, and calls that may take as long: a restart would find the same."""
    end = tmp_path / "end"
    (tmp_path / "model.py").write_text("import os, time\n" + model.format(end=str(end)))
    options: dict[str, Any] = {"window": 2, "concurrency": 2, "timeout_s": 3600.0, "mode": "none"}
    with app_of(embedded_bus, model=f"{tmp_path}/model.py:predict", stuck_after_s=2.0, **options) as (app, url):
        app.start()
        wait_for(lambda: fetch(f"{url}/readyz")[0] == 200)
        embedded_bus.send(5)
        wait_for(lambda: fetch_json(f"{url}/stats")["window"]["in_progress"] == 2)
        wait_for(lambda: fetch_json(f"{url}/stats")["progress"]["idle_s"] > 4.0 and fetch(f"{url}/livez")[0] == 200)
        end.touch()
        wait_for(lambda: app.snapshot().settled == 5)


def test_a_subscription_that_the_broker_took_away_is_dead(embedded_bus: Bus) -> None:
    with app_of(embedded_bus, stuck_after_s=1.0) as (app, url):
        app.start()
        settle_one(embedded_bus, app)
        # The broker forgets the subscription, and says nothing.
        assert app._consumer is not None
        subscription: Any = app._consumer._broker._supervisor._subscriptions[0]  # type: ignore[attr-defined]
        subscription._attached.unsubscribe(f"{subscription._name}-1")
        embedded_bus.send(5)
        wait_for(lambda: fetch(f"{url}/livez")[0] == 503)
        assert conditions(f"{url}/livez") == {
            "process": True, "gauge": True, "reader": True, "watchdog": True, "calls": True, "progress": False,
        }  # fmt: skip
        assert fetch(f"{url}/readyz")[0] == 200


def test_a_reader_that_hangs_is_dead(embedded_bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "HANGS_S", 1.0)
    released = threading.Event()
    released.set()

    def block(signal: Signal) -> None:
        if isinstance(signal, Received):
            released.wait(LONG)

    with app_of(embedded_bus, block) as (app, url):
        app.start()
        settle_one(embedded_bus, app)
        released.clear()
        embedded_bus.send(5)
        wait_for(lambda: conditions(f"{url}/livez").get("reader") is False)
        released.set()
        wait_for(lambda: fetch(f"{url}/livez")[0] == 200)


@pytest.mark.long
def test_a_stopped_replica_is_seen(embedded_bus: Bus) -> None:
    """A process that runs no more sends no reports: only the age of the last one tells."""
    consumer = embedded_bus.consume("--metrics", "0", "--processes", "2", "--concurrency", "2")
    url = url_of(consumer)
    wait_for(lambda: fetch(f"{url}/readyz")[0] == 200 and len(conditions(f"{url}/readyz")) == 8)
    [first, *_] = psutil.Process(consumer.process.pid).children()
    first.send_signal(signal.SIGSTOP)
    try:
        wait_for(lambda: fetch(f"{url}/livez")[0] == 503)
        wait_for(lambda: any(name.endswith(".process") and not ok for name, ok in conditions(f"{url}/livez").items()))
    finally:
        first.send_signal(signal.SIGCONT)
    wait_for(lambda: fetch(f"{url}/livez")[0] == 200)
    consumer.terminate()
    consumer.finish()
