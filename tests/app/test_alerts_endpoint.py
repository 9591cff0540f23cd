"""Rules beside the endpoint of a consumer: shown, listed and silenced."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from infertool.app.consumer import ConsumerApp
from infertool.app.monitoring import Monitor, monitored
from infertool.errors import ListenError, SettingsError
from infertool.net.http_server import HttpServer, is_local
from infertool.settings import AlertSettings, ConsumeSettings, PublishSettings, Settings, TelemetrySettings
from tests.support.running import infertool
from tests.support.scripted_http import Told, serving

PATIENCE_S = 120
ALWAYS = {"name": "Always", "when": "uptime_s >= 0.0", "severity": "page", "summary": "it runs for {value} s"}


def settings_for(folder: Path, *, metrics: str = "0", **alerting: Any) -> Settings:
    return Settings(
        consume=ConsumeSettings(state_dir=str(folder)),
        publish=PublishSettings(mode="none"),
        telemetry=TelemetrySettings(metrics=metrics),
        alerting=AlertSettings(**alerting),
    )


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Monitor]:
    settings = settings_for(tmp_path, rules=[ALWAYS])
    app = ConsumerApp(settings)
    with monitored(settings, app) as opened:
        assert opened is not None
        yield opened
    app.close()


def wait_for(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def fires(monitor: Monitor) -> bool:
    return any(state.state == "firing" for state in monitor.document().alerts)


def test_stats_and_the_list_show_the_states(monitor: Monitor) -> None:
    wait_for(lambda: fires(monitor))
    url = f"http://{monitor.address}"
    shown = {each["rule"]: each for each in urllib3.request("GET", f"{url}/stats").json()["alerts"]}
    assert (shown["Always"]["state"], shown["Always"]["severity"]) == ("firing", "page")
    # Nobody is connected to a broker, so its figures are unknown.
    assert shown["Backlog"]["state"] == "nodata"
    # Nothing was in any state before the start.
    assert min(each["since"] for each in shown.values()) >= monitor.document().started - 60
    listed = infertool("alerts", "list", "--stats-url", f"{url}/stats")
    first = listed.stdout.splitlines()[1].split()
    assert (first[0], first[1], first[3]) == ("Always", "firing", "page")
    assert "it runs for" in listed.stdout
    as_json = infertool("alerts", "list", "--stats-url", url, "-o", "json")
    assert json.loads(as_json.stdout)[0]["rule"] == "Always"


@pytest.mark.parametrize("told", [{}, {"alerts": [1]}, {"alerts": [{"rule": "a"}]}, [], "text"])
def test_what_is_no_consumer_is_named(told: object) -> None:
    with serving(lambda _asked: Told(200, told)) as server:
        done = infertool("alerts", "list", "--stats-url", server.url)
    assert (done.returncode, done.stdout) == (3, "")
    [line] = done.stderr.splitlines()
    assert f"what answers at {server.url} is no consumer of infertool" in line


def test_what_a_sink_did_not_get_is_counted(tmp_path: Path) -> None:
    rules = [{**ALWAYS, "name": f"Always{number}"} for number in range(110)]
    settings = settings_for(tmp_path, rules=rules, command=["sleep", "600"], timeout_s=600.0)
    app = ConsumerApp(settings)
    with monitored(settings, app) as monitor:
        assert monitor is not None

        def dropped() -> float:
            text = urllib3.request("GET", f"http://{monitor.address}/metrics").data.decode()
            [value] = [
                sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
                if sample.name == "infertool_notifications_dropped_total" and sample.labels == {"sink": "command"}
            ]
            return value

        # One is under way, and a hundred wait.
        wait_for(lambda: dropped() >= 9)
    app.close()


def test_a_rule_is_silenced_from_the_command_line(monitor: Monitor) -> None:
    url = f"http://{monitor.address}"
    done = infertool("alerts", "silence", "Backlog", "2h", "--stats-url", url)
    assert (done.returncode, done.stdout) == (0, "Backlog tells nobody for 2h\n")
    wrong = infertool("alerts", "silence", "Backlg", "2h", "--stats-url", url)
    assert wrong.returncode == 3
    assert "answered 404: there is no rule Backlg; did you mean 'Backlog'?" in wrong.stderr
    ended = infertool("alerts", "silence", "Backlog", "0s", "--stats-url", url, "-o", "json")
    assert json.loads(ended.stdout) == {"rule": "Backlog", "seconds": 0.0}
    away = infertool("alerts", "list", "--stats-url", "http://me:hidden@127.0.0.1:1")
    assert (away.returncode, "hidden" in away.stderr) == (3, False)
    assert infertool("alerts", "list", "--stats-url", "ftp://127.0.0.1:1").returncode == 2


def test_a_consumer_without_rules_loads_nothing_for_them() -> None:
    script = "import sys, infertool.cli.consume.run; sys.exit(bool({'cel', 'urllib3'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], timeout=PATIENCE_S).returncode == 0


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"content-type": "application/json"}, b'{"rule": "Backlog", "seconds": 5}', 200),
        ({"content-type": "application/json; charset=utf-8"}, b'{"rule": "Backlog", "seconds": 5}', 200),
        ({"content-type": "application/json"}, b'{"rule": "Backlog", "seconds": -1}', 400),
        ({"content-type": "application/json"}, b'{"rule": "Backlog", "seconds": 1e99}', 400),
        ({"content-type": "application/json"}, b'{"rule": "Backlog", "seconds": []}', 400),
        ({"content-type": "application/json"}, b"[", 400),
        ({"content-type": "text/plain"}, b'{"rule": "Backlog", "seconds": 5}', 415),
        ({}, b"rule=Backlog", 415),
        ({"content-type": "application/json"}, b" " * 100_000, 411),
    ],
)
def test_a_silence_takes_json_only(monitor: Monitor, headers: dict[str, str], body: bytes, status: int) -> None:
    answer = urllib3.request("POST", f"http://{monitor.address}/alerts/silence", headers=headers, body=body)
    assert answer.status == status


def test_other_paths_take_no_post(monitor: Monitor) -> None:
    json_header = {"content-type": "application/json"}
    assert urllib3.request("POST", f"http://{monitor.address}/stats", headers=json_header, body=b"{}").status == 405
    assert urllib3.request("POST", f"http://{monitor.address}/x", headers=json_header, body=b"{}").status == 404
    assert urllib3.request("GET", f"http://{monitor.address}/alerts/silence").status == 404


@pytest.mark.parametrize(
    ("address", "local"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True), ("10.0.0.1", False),
     ("fe80::1%eth0", False), ("::ffff:10.0.0.1", False), ("0.0.0.0", False)],
)  # fmt: skip
def test_only_this_machine_may_post(address: str, local: bool) -> None:
    assert is_local(address) is local


def test_rules_need_no_endpoint(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, metrics="", rules=[ALWAYS])
    app = ConsumerApp(settings)
    with monitored(settings, app) as monitor:
        assert monitor is not None
        assert (monitor.address, monitor.port) == ("", 0)
        wait_for(lambda: fires(monitor))
    app.close()
    for given in (
        settings_for(tmp_path, metrics=""),
        settings_for(tmp_path, metrics="", rules=[ALWAYS], enabled=False),
    ):
        assert not given.is_detailed
        with monitored(given, app) as nothing:
            assert nothing is None
    assert settings_for(tmp_path, metrics="9464").has_alerts


def test_a_port_in_use_costs_no_states(tmp_path: Path, monitor: Monitor) -> None:
    wait_for(lambda: fires(monitor))
    (saved,) = wait_for(lambda: list(tmp_path.glob("alerts-*.json")))
    monitor.close()
    before = saved.read_text()
    taken = HttpServer("127.0.0.1", 0, {}, name="test")
    settings = settings_for(tmp_path, metrics=f"127.0.0.1:{taken.port}", rules=[ALWAYS])
    app = ConsumerApp(settings)
    with pytest.raises(ListenError), monitored(settings, app):
        pass
    taken.close()
    app.close()
    assert saved.read_text() == before


def test_a_wrong_rule_ends_the_start(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, rules=[{"name": "Backlog", "fro": "1m"}])
    app = ConsumerApp(settings)
    with pytest.raises(SettingsError, match="there is no key fro"), monitored(settings, app):
        pass
    app.close()
