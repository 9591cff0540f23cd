"""`dev --metrics` and `demo --metrics`: figures of the embedded servers, told to another process."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from infertool import brokers
from infertool.embedded import processes
from infertool.embedded.endpoint import EmbeddedEndpoint
from infertool.embedded.figures import MOST_NAMES
from infertool.message import Outgoing
from tests.support.brokers import settings
from tests.support.prometheus import fetch, fetch_json, promtool
from tests.support.running import CREDENTIALS, LONG, Running, infertool


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def samples(url: str) -> dict[tuple[str, ...], float]:
    """Return the values by name and values of labels."""
    return {
        (sample.name.removeprefix("infertool_embedded_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(fetch(f"{url}/metrics")[1])
        for sample in family.samples
    }


@pytest.mark.prometheus
def test_queues_and_topics_of_dev(tmp_path: Path) -> None:
    dev = Running(
        tmp_path,
        "dev",
        "--stomp-port",
        "0",
        "--http-port",
        "0",
        "--no-gateway",
        "--metrics",
        "0",
        "-o",
        "json",
        **CREDENTIALS,
    )
    try:
        assert dev.process.stdout
        ready = json.loads(dev.process.stdout.readline())
        url = ready["metrics"].removesuffix("/metrics")
        broker = brokers.open(settings(ready["stomp"]))
        broker.connect()
        for name in (*(f"q{number}" for number in range(MOST_NAMES + 5)), 'odd \\ "name"', "most", "most"):
            broker.send(Outgoing(name, b"{}"), lambda error: None)
        wait_until(lambda: samples(url).get(("queue_messages", "most", "ready")) == 2)
        found = samples(url)
        assert found["queue_changes_total", "enqueued", "most"] == 2
        assert found["connections", "broker"] == 1
        assert sum(1 for key in found if key[0] == "queue_consumers") == MOST_NAMES
        checked = promtool("check", "metrics", text=fetch(f"{url}/metrics")[1])
        assert (checked.returncode, checked.stderr) == (0, "")
        assert [fetch(f"{url}/{path}") for path in ("livez", "readyz")] == [(HTTPStatus.OK, "ok\n")] * 2
        broker.close(1)
        refused = infertool("dev", "--stomp-port", "0", "--http-port", "0", "--metrics", url.rpartition(":")[2])
        assert (refused.returncode, "cannot listen on" in refused.stderr) == (3, True)
    finally:
        dev.terminate()
        dev.process.wait(LONG)


@pytest.mark.parametrize("module", [processes.BROKER, processes.CHANNEL_SERVER])
def test_a_server_that_hangs_is_not_live(module: str) -> None:
    with ExitStack() as stack:
        server = processes.start(module, host="127.0.0.1", port=0, options=["--figures"])
        stack.callback(server.stop)
        endpoint = EmbeddedEndpoint("0", [server], hangs_s=2.0)
        stack.callback(endpoint.close)
        url = f"{endpoint.url}/livez"
        os.kill(server.process.pid, signal.SIGSTOP)
        stack.callback(os.kill, server.process.pid, signal.SIGCONT)
        wait_until(lambda: fetch(url)[0] == HTTPStatus.SERVICE_UNAVAILABLE)
        assert fetch(url)[1].startswith(f"{server.name}: last ran ")
        os.kill(server.process.pid, signal.SIGCONT)
        wait_until(lambda: fetch(url)[0] == HTTPStatus.OK)


def test_demo_serves_the_figures_of_its_consumer(tmp_path: Path) -> None:
    demo = Running(tmp_path, "demo", "--for", "10m", "--no-gateway", "--metrics", "0", "-o", "json")
    try:
        demo.wait_for("metrics, health and stats")
        url = re.findall(r"http://[\d.]+:\d+", demo.log.read_text())[0]
        wait_until(lambda: fetch_json(f"{url}/stats")["counts"]["succeeded"] > 0)
        demo.terminate()
        assert demo.finish()["lost"] == 0
    finally:
        demo.kill()
