"""A consumer of a real broker tells of a backlog, and of its end, to dashboards and to a webhook."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
import urllib3

from tests.alerts.receiver import PATIENCE_S, receiving
from tests.alerts.test_alertmanager import alertmanager
from tests.app.test_alerting import alert, joined
from tests.bus.conftest import Bus
from tests.support.running import infertool

MODEL = """
import os, time
GATE = {gate!r}

def predict(payload):
    while not os.path.exists(GATE):
        time.sleep(0.05)
    return {{"class": "a"}}
"""
RULES = json.dumps([{"name": "Backlog", "when": "queue.depth > 20", "clear": "queue.depth < 5", "for": "0s"}])
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


@pytest.mark.parametrize("processes", [1, 2])
def test_a_backlog_fires_and_is_resolved(bus: Bus, processes: int) -> None:
    gate = bus.folder / "gate"
    model = bus.folder / "gated.py"
    model.write_text(MODEL.format(gate=str(gate)))
    viewer = joined(bus.hub.url)
    with receiving() as hook:
        consumer = bus.consume(
            "--processes", str(processes), "--window", "5", "--concurrency", "2", model=f"{model}:predict",
            INFERTOOL_CONSUME__TIMEOUT_S="600", INFERTOOL_ALERTING__RULES=RULES,
            INFERTOOL_ALERTING__WEBHOOK_URL=hook.url("/hook"), INFERTOOL_ALERTING__WEBHOOK_SECRET=SECRET,
            INFERTOOL_ALERTING__TIMEOUT_S="300",
        )  # fmt: skip
        ids = bus.send(100)
        (told,) = hook.wait_for(1)
        assert (told["type"], told["data"]["rule"], told["data"]["threshold"]) == ("alert.firing", "Backlog", 20)
        assert told["data"]["value"] > 20
        gate.touch()
        assert [each["type"] for each in hook.wait_for(2)] == ["alert.firing", "alert.resolved"]
        assert bus.viewer.wait(len(ids), 300)
        seen = []
        while "resolved" not in seen:
            # Other tests share the hub.
            if (shown := alert(viewer))["labels"]["queue"] in bus.queue:
                seen.append(shown["state"])
        assert seen[0] == "firing"
        consumer.terminate()
        assert consumer.finish()["succeeded"] == len(ids)
    viewer.close()


@pytest.mark.prometheus
def test_alertmanager_hears_of_one_alert_also_when_the_consumer_is_killed(embedded_bus: Bus) -> None:
    bus = embedded_bus
    bus.lost_count = True
    gate = bus.folder / "gate"
    model = bus.folder / "gated.py"
    model.write_text(MODEL.format(gate=str(gate)))
    with receiving() as told, alertmanager(bus.folder, told.url()) as url:
        options: dict[str, Any] = {
            "model": f"{model}:predict", "INFERTOOL_CONSUME__TIMEOUT_S": "600", "INFERTOOL_ALERTING__RULES": RULES,
            "INFERTOOL_ALERTING__ALERTMANAGER_URL": url, "INFERTOOL_ALERTING__TIMEOUT_S": "300",
        }  # fmt: skip
        first = bus.consume("--window", "5", "--concurrency", "2", **options)
        bus.send(100)
        told.wait_for(1)
        (before,) = urllib3.request("GET", f"{url}/api/v2/alerts").json()
        first.kill()
        second = bus.consume("--window", "5", "--concurrency", "2", **options)
        # It repeats at once what it found in its states, so that the alert does not end by itself.
        end = time.monotonic() + PATIENCE_S
        while True:
            (after,) = urllib3.request("GET", f"{url}/api/v2/alerts").json()
            if after["endsAt"] > before["endsAt"]:
                break
            assert time.monotonic() < end
            time.sleep(0.1)
        assert after["fingerprint"] == before["fingerprint"]
        gate.touch()
        assert [each["status"] for each in told.wait_for(2)] == ["firing", "resolved"]
        second.terminate()
        second.finish()


def test_a_wrong_rule_ends_the_start_with_its_place(bus: Bus) -> None:
    done = infertool(
        "consume", "--broker", bus.broker.url, "--queue", bus.queue, "--phoenix", bus.hub.url,
        INFERTOOL_ALERTING__RULES='[{"name": "Backlog", "when": "queue.dept > 20"}]',
    )  # fmt: skip
    assert done.returncode == 2
    reason = "there is no field queue.dept; did you mean 'queue.depth'?"
    assert done.stderr.splitlines()[-3:] == [
        f"infertool: alerting.rules: `when` of the alert rule Backlog cannot work: {reason}",
        "  queue.dept > 20",
        "  ^",
    ]
