"""The dashboard page in headless Chromium, with results pushed by a service client."""

from __future__ import annotations

import json
import shutil
from typing import Self

import pytest
import websocket

from tests.js.node import NodeProgram
from tests.js.packages import BROWSER
from tests.support.hub import HubProcess
from tests.support.install import apt, npm

pytestmark = pytest.mark.browser


@pytest.fixture
def hub():
    with HubProcess() as running:
        yield running


@pytest.fixture
def page(hub, tmp_path):
    chromium = shutil.which("chromium")
    if not chromium:
        apt("chromium")
        chromium = shutil.which("chromium")
    with NodeProgram("browser.mjs", str(npm(BROWSER)), chromium, hub.http_url, str(tmp_path)) as program:
        program.wait_for("loaded")
        program.send("wait", selector="#connection", text="connected")
        program.wait_for("shown")
        yield program
        program.send("errors")
        assert program.wait_for("errors")["messages"] == []


class Service:
    """Pushes to the hub and waits for each reply."""

    def __init__(self, hub: HubProcess) -> None:
        self._socket = websocket.create_connection(f"{hub.url}?vsn=2.0.0", suppress_origin=True, timeout=20)
        self._push("phx_join", {})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._socket.close()

    def result(self, request_id: str, predicted: str = "A") -> None:
        prediction = {"class": predicted, "confidence": 0.875}
        self._push("new_result", {"request_id": request_id, "prediction": prediction, "processing_ms": 12.5})

    def failure(self, request_id: str, error: str) -> None:
        self._push("inference_failed", {"request_id": request_id, "error_type": "InferenceError", "error": error})

    def alert(self, rule: str) -> None:
        self._push("alert", {"rule": rule, "state": "firing", "value": 7, "threshold": 5})

    def _push(self, event: str, payload: dict) -> None:
        self._socket.send(json.dumps(["1", "1", "service:inference", event, payload]))
        assert json.loads(self._socket.recv())[4]["status"] == "ok"


def wait(page, selector, text):
    page.send("wait", selector=selector, text=text)
    page.wait_for("shown", selector=selector, text=text)


def read(page, expression):
    page.send("read", expression=expression)
    return page.wait_for("value", expression=expression)["value"]


def test_results_appear_newest_first(hub, page):
    with Service(hub) as service:
        service.result("req-1")
        wait(page, "#results td", "req-1")
        service.result("req-2", predicted="B")
        wait(page, "#results tr:first-child", "req-2")
    cells = read(page, "[...document.querySelectorAll('#results tr:first-child td')].map(td => td.textContent)")
    assert cells[:4] == ["req-2", "B", "0.875", "12.5"]
    assert read(page, "document.querySelectorAll('#results tr').length") == 2


def test_failures_and_alerts_appear(hub, page):
    with Service(hub) as service:
        service.failure("req-3", "simulated failure")
        service.alert("queue depth")
    wait(page, "#alerts .alert", "simulated failure")
    wait(page, "#alerts .alert[data-kind=firing]", "7 of 5")
    assert read(page, "document.getElementById('failures-total').textContent") == "1"


def test_content_is_text_never_html(hub, page):
    script = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">"
    with Service(hub) as service:
        service.result(script, predicted=script)
        service.failure("req-4", script)
        service.alert(script)
    wait(page, "#results td:first-child", "<script>document.title")
    wait(page, "#alerts .alert[data-kind=firing]", "<script>document.title")
    assert read(page, "document.querySelectorAll('main script, main img').length") == 0
    assert read(page, "document.title") == "infertool dashboard"


def test_the_page_asks_nobody_but_the_hub(hub, page):
    page.send("requests")
    urls = page.wait_for("requests")["urls"]
    assert f"{hub.http_url}vendor/phoenix.mjs" in urls
    assert all(url.startswith((hub.http_url, "data:")) for url in urls)


def test_many_events_are_counted_and_the_table_stays_bounded(hub, page):
    with Service(hub) as service:
        for number in range(1000):
            service.result(f"req-{number}")
        wait(page, "#results-total", "1,000")
        wait(page, "#results td", "req-999")  # the table is drawn after the figures
    assert read(page, "document.querySelectorAll('#results tr').length") == 200
    assert read(page, "document.querySelector('#results td').textContent") == "req-999"


def test_a_restart_of_the_hub_is_survived(hub, page):
    hub.stop()
    wait(page, "#connection[data-state=disconnected]", "disconnected")
    hub.start()
    wait(page, "#connection[data-state=connected]", "connected")
    with Service(hub) as service:
        service.result("req-after")
    wait(page, "#results td", "req-after")
