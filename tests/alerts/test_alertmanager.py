"""A real Alertmanager gets a firing alert, then its resolution."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import urllib3

from infertool.alerts.sinks.alertmanager import AlertmanagerSink
from infertool.alerts.sinks.delivery import Delivery
from tests.alerts.receiver import PATIENCE_S, receiving
from tests.alerts.test_sinks import notification
from tests.support.install import apt
from tests.support.ports import free_port

pytestmark = pytest.mark.prometheus


@contextmanager
def alertmanager(folder: Path, receiver_url: str) -> Iterator[str]:
    """Start an Alertmanager that tells `receiver_url` at once; yield its address."""
    apt("prometheus-alertmanager")
    # JSON is YAML.
    config = {
        "route": {"receiver": "r", "group_by": ["..."], "group_wait": "0s", "group_interval": "1s"},
        "receivers": [{"name": "r", "webhook_configs": [{"url": receiver_url, "send_resolved": True}]}],
    }
    (folder / "am.yml").write_text(json.dumps(config))
    port = free_port()
    command = [
        "prometheus-alertmanager", f"--config.file={folder}/am.yml", f"--storage.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_ready(process, f"http://127.0.0.1:{port}/-/ready", folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _wait_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < end:
        try:
            if urllib3.request("GET", url, retries=False).status == 200:
                return
        except urllib3.exceptions.HTTPError:
            time.sleep(0.1)
    raise AssertionError(log.read_text())


def test_alertmanager_gets_firing_then_resolved(tmp_path: Path) -> None:
    with receiving() as receiver, alertmanager(tmp_path, receiver.url()) as url:
        delivery = Delivery(AlertmanagerSink(url, 30), print)
        delivery.put(notification())
        (told,) = receiver.wait_for(1)[:1]
        assert told["status"] == "firing"
        (alert,) = told["alerts"]
        assert alert["labels"] == {"alertname": "Backlog", "severity": "page", "queue": 'a"b\n'}
        (kept,) = urllib3.request("GET", f"{url}/api/v2/alerts").json()
        assert kept["annotations"]["summary"] == "1500 messages wait"
        assert kept["startsAt"].startswith("2023-11-14T22:13:20.5")

        # Told again, it is the same alert; its end moves.
        delivery.repeat([notification()])
        _wait_for_later_end(url, kept["endsAt"])
        delivery.put(notification(state="resolved"))
        end = time.monotonic() + PATIENCE_S
        while receiver.wait_for(1)[-1]["status"] != "resolved":
            assert time.monotonic() < end
            time.sleep(0.05)
        assert {told["status"] for told in receiver.wait_for(2)} == {"firing", "resolved"}
        assert urllib3.request("GET", f"{url}/api/v2/alerts").json() == []
        assert delivery.close(PATIENCE_S)
        assert (delivery.sent, delivery.dropped) == (3, 0)


def _wait_for_later_end(url: str, before: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while True:
        (kept,) = urllib3.request("GET", f"{url}/api/v2/alerts").json()
        if kept["endsAt"] > before:
            return
        assert time.monotonic() < end
        time.sleep(0.05)
