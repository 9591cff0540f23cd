"""The dashboard page in headless Chromium, with results pushed by a service client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infertool.embedded.channel_server.channels import Channel, Definition, RefuseJoin
from tests.embedded.channel_server.running import RunningHub
from tests.js.dashboard import Service, opened, read, stop_clock, until, wait
from tests.js.node import NodeProgram
from tests.support.hub import HubProcess
from tests.support.proxy import Proxy

pytestmark = pytest.mark.browser


@pytest.fixture
def hub() -> Iterator[HubProcess]:
    with HubProcess() as running:
        yield running


@pytest.fixture
def page(hub: HubProcess, tmp_path: Path) -> Iterator[NodeProgram]:
    with opened(hub.http_url, tmp_path) as program:
        yield program
        program.send("errors")
        assert program.wait_for("errors")["messages"] == []


def press(page: NodeProgram, *keys: str) -> None:
    page.send("press", keys=keys)
    page.wait_for("pressed")


def cells(page: NodeProgram, selector: str) -> Any:
    return read(page, f'[...document.querySelectorAll("{selector}")].map(cell => cell.textContent)')


def requests(page: NodeProgram) -> Any:
    return cells(page, "#results .rows td:first-child")


def test_results_appear_newest_first(hub: HubProcess, page: NodeProgram) -> None:
    with Service(hub) as service:
        service.result("req-1")
        wait(page, "#results td", "req-1")
        service.result("req-2", predicted="B")
        wait(page, "#results [aria-rowindex='2']", "req-2")
    assert cells(page, "#results [aria-rowindex='2'] td")[:4] == ["req-2", "B", "0.875", "12.5"]
    assert requests(page) == ["req-2", "req-1"]


def test_a_batch_is_taken_apart(hub: HubProcess, page: NodeProgram) -> None:
    with Service(hub) as service:
        service.push("new_results", {"results": [{"request_id": "req-1"}, {"request_id": "req-2"}, "odd"]})
    wait(page, "#results-total", "3")
    assert requests(page) == ["", "req-2", "req-1"]


def test_failures_and_alerts_are_listed_and_toast(hub: HubProcess, page: NodeProgram) -> None:
    stop_clock(page)
    with Service(hub) as service:
        service.failure("req-3", "simulated failure")
        service.alert("queue depth", "firing")
        wait(page, "#failures tr", "simulated failure")
        wait(page, ".toast[data-kind=failed]", "simulated failure")
        wait(page, ".toast[data-kind=firing]", "value 7, threshold 5")
        wait(page, "#rules .rule[data-kind=firing]", "value 7, threshold 5")
        wait(page, "#urgent", "queue depth: firing")
        assert read(page, "document.title") == "1 firing · infertool"
        press(page, "Escape")
        assert read(page, "document.querySelectorAll('.toast').length") == 0
        service.alert("queue depth", "resolved")
        wait(page, "#rules .rule[data-kind=resolved]", "queue depth")
    wait(page, "#failures-total", "1")
    assert read(page, "document.querySelectorAll('.rule').length") == 1


def test_a_wave_of_failures_is_one_toast(hub: HubProcess, page: NodeProgram) -> None:
    stop_clock(page)
    with Service(hub) as service:
        for number in range(1200):
            service.failure(f"req-{number}", "simulated failure")
    wait(page, ".toast", " × InferenceError")  # noqa: RUF001 - the sign on the page
    wait(page, "#failures-total", "1,200")
    assert read(page, "document.querySelectorAll('.toast').length") == 1
    wait(page, "#kept", "1,000 kept")


def test_content_is_text_never_html(hub: HubProcess, page: NodeProgram) -> None:
    stop_clock(page)
    script = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">"
    with Service(hub) as service:
        service.result(script, predicted=script)
        service.failure(script, script)
        service.alert(script, "resolved")
    wait(page, "#results td:first-child", "<script>document.title")
    wait(page, "#rules .rule", "<script>document.title")
    wait(page, ".toast", "<script>document.title")
    press(page, "Tab", "Tab", "Tab", "Tab", "Tab", "ArrowDown", "Enter")
    wait(page, "#detail-text", "<script>document.title")
    assert read(page, "document.querySelectorAll('body script, body img').length") == 0
    assert read(page, "document.title") == "infertool dashboard"


def test_a_failure_shows_its_traceback_line_by_line(hub: HubProcess, page: NodeProgram) -> None:
    trace = "model.py:3 in predict\nmodel.py:9 in <b>scale</b>"
    with Service(hub) as service:
        service.push("inference_failed", {"request_id": "r-1", "error": "no", "traceback": trace})
    wait(page, "#failures tr", "r-1")
    assert read(page, "(document.querySelector('#failures .rows tr').click(), true)")
    wait(page, "#detail[open]", "model.py:3 in predict")
    shown = read(page, "document.querySelector('#detail-text').textContent").split("\n")
    assert shown[:4] == ["model.py:3 in predict", "model.py:9 in <b>scale</b>", "", "{"]


def test_odd_events_are_counted_and_shown_as_far_as_they_can_be(hub: HubProcess, page: NodeProgram) -> None:
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"deep": deep}
    with Service(hub) as service:
        service.push("new_result", {})
        service.push("new_result", {"request_id": ["x"], "prediction": 7, "processing_ms": "12", "completed_at": {}})
        service.push("new_result", {"request_id": "\x1b[31m\x00\u202eevil", "prediction": {"confidence": 9e99}})
        service.push("new_result", {"request_id": "negative", "processing_ms": -12.5})
        service.push("new_result", {"request_id": "deep", "original_payload": deep})
        service.push("new_result", {"request_id": "large", "original_payload": "x" * 5_000_000})
        service.push("inference_failed", {"error": {"not": "text"}, "failed_at": 7})
        service.push("alert", {"rule": None, "state": 5})
    wait(page, "#results-total", "6")
    wait(page, "#failures tr", '{"not":"text"}')
    wait(page, "#rules .rule[data-kind=firing]", "alert")
    assert requests(page) == ["large", "deep", "negative", "␛[31m␀\ufffdevil", '["x"]', ""]
    assert cells(page, "#results .rows td:nth-child(4)") == ["", "", "-12.5", "", "", ""]


def test_the_page_asks_nobody_but_the_hub(hub: HubProcess, page: NodeProgram) -> None:
    page.send("requests")
    urls = page.wait_for("requests")["urls"]
    assert f"{hub.http_url}vendor/phoenix.mjs" in urls
    assert all(url.startswith((hub.http_url, "data:")) for url in urls)


def test_ten_thousand_events_at_once_are_counted_in_a_bounded_page(hub: HubProcess, page: NodeProgram) -> None:
    with Service(hub) as service:
        for batch in range(20):
            service.push("new_results", {"results": [{"request_id": f"req-{batch * 500 + n}"} for n in range(500)]})
    wait(page, "#results-total", "10,000")
    wait(page, "#kept", "5,000 kept")
    wait(page, "#results [aria-rowindex='2']", "req-9999")
    assert read(page, "document.querySelectorAll('#results tr').length") < 60
    press(page, "Tab", "Tab", "Tab", "Tab", "Tab", "ArrowDown", "End")
    wait(page, "#results [aria-selected=true]", "req-5000")
    assert read(page, "document.querySelectorAll('#results tr').length") < 60
    press(page, "f")
    wait(page, "#results [aria-rowindex='2']", "req-9999")


def test_the_filter_works_as_it_is_typed(hub: HubProcess, page: NodeProgram) -> None:
    with Service(hub) as service:
        for number in range(9):
            service.result(f"req-{number}", predicted="AB"[number % 2])
        service.failure("req-9", "simulated failure")
        wait(page, "#kept", "10 kept")
        press(page, "/")
        page.send("type", text="class=b -req-3")
        wait(page, "#kept", "3 of 10 match")
        assert requests(page) == ["req-7", "req-5", "req-1"]
        page.send("type", text=" ms>")
        wait(page, "#filter-error", "ms> needs a value")
        assert read(page, "document.getElementById('filter').getAttribute('aria-invalid')") == "true"
        page.send("type", text="12")
        service.result("req-new", predicted="B")
        wait(page, "#results [aria-rowindex='2']", "req-new")
        press(page, "Escape")
        wait(page, "#kept", "11 kept")


def test_a_pause_holds_the_list_and_loses_nothing(hub: HubProcess, page: NodeProgram) -> None:
    with Service(hub) as service:
        service.result("before")
        wait(page, "#results td", "before")
        press(page, "Space")
        for number in range(50):
            service.result(f"during-{number}")
        wait(page, "#pause", "Resume (50 new)")
        wait(page, "#results-total", "51")
        assert requests(page) == ["before"]
        press(page, "Space")
        wait(page, "#pause", "Pause")
    wait(page, "#kept", "51 kept")
    assert requests(page)[0] == "during-49"
    press(page, "/")
    page.send("type", text="during-0")
    wait(page, "#results [aria-rowindex='2']", "during-0")


def test_rows_are_chosen_and_opened_with_the_keyboard(hub: HubProcess, page: NodeProgram) -> None:
    with Service(hub) as service:
        for number in range(3):
            service.result(f"req-{number}")
        wait(page, "#kept", "3 kept")
        press(page, "/", "Tab", "Tab", "ArrowDown", "ArrowDown")
        wait(page, "#results [aria-selected=true]", "req-1")
        active = "document.getElementById(document.activeElement.getAttribute('aria-activedescendant'))"
        assert read(page, f"{active}.record.request") == "req-1"
        service.result("req-3")
        wait(page, "#results-total", "4")
        wait(page, "#results [aria-selected=true]", "req-1")
        press(page, "Enter")
        wait(page, "#detail[open]", '"request_id": "req-1"')
        press(page, "Escape", "Escape")
        wait(page, "body:not(:has([aria-selected=true], dialog[open]))", "req-3")


def test_shortcuts_can_be_switched_off(page: NodeProgram) -> None:
    press(page, "?")
    wait(page, "#manual[open] h2", "Help")
    press(page, "Tab")
    until(page, "document.activeElement.id === 'shortcuts'")
    press(page, "Space")
    until(page, "!document.getElementById('shortcuts').checked")
    press(page, "Escape")
    # The browser takes the focus from the hidden box only with its next frame.
    until(page, "!document.querySelector('dialog[open]') && document.activeElement === document.body")
    press(page, "Space")
    assert read(page, "document.getElementById('pause').textContent") == "Pause"
    press(page, "?")
    assert read(page, "document.querySelectorAll('dialog[open]').length") == 0


def test_the_theme_follows_the_system_until_it_is_chosen(page: NodeProgram) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    page.send("look", scheme="dark", width=1280, height=800)
    dark = read(page, ground)
    press(page, "t")
    light = read(page, ground)
    assert light != dark
    press(page, "t")
    page.send("look", scheme="light", width=1280, height=800)
    assert read(page, ground) == dark


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("dark", 400)])
def test_axe_finds_no_fault(hub: HubProcess, page: NodeProgram, scheme: str, width: int) -> None:
    stop_clock(page)
    page.send("look", scheme=scheme, width=width, height=800)
    with Service(hub) as service:
        for number in range(5):
            service.result(f"req-{number}", predicted="ABCDE"[number])
        service.failure("req-5", "simulated failure")
        service.alert("queue depth", "firing")
        service.alert("error rate", "resolved")
    wait(page, "#rules .rule[data-kind=resolved]", "error rate")
    wait(page, ".toast[data-kind=failed]", "simulated failure")
    faults = []
    press(page, "Tab", "Tab", "Tab", "Tab", "Tab", "ArrowDown")
    for keys in ([], ["Enter"], ["Escape", "?"]):
        press(page, *keys)
        page.send("axe")
        faults += page.wait_for("faults")["faults"]
    assert faults == []


def test_a_restart_of_the_hub_is_survived_and_shown(hub: HubProcess, page: NodeProgram) -> None:
    hub.stop()
    wait(page, "#connection[data-state=disconnected]", "disconnected")
    hub.start()
    wait(page, "#connection[data-state=connected]", "connected")
    wait(page, "#results .gap", "not connected from")
    with Service(hub) as service:
        service.result("req-after")
    wait(page, "#results td", "req-after")


def test_what_was_missed_while_the_connection_was_away_follows(hub: HubProcess, tmp_path: Path) -> None:
    with (
        Proxy(hub.port) as proxy,
        opened(f"http://127.0.0.1:{proxy.port}/", tmp_path) as page,
        Service(hub) as service,
    ):
        service.push("new_results", {"results": [{"event_id": "e-0", "request_id": "req-0"}]})
        wait(page, "#results td", "req-0")
        proxy.stall()
        proxy.cut()
        wait(page, "#connection[data-state=disconnected]", "disconnected")
        for number in (1, 2):
            service.push("new_result", {"event_id": f"e-{number}", "request_id": f"req-{number}"})
        proxy.resume()
        wait(page, "#results td", "req-2")
        wait(page, "#results-total", "3")
        service.result("req-3")
        wait(page, "#results-total", "4")
        rows = requests(page)
        assert [row for row in rows if row.startswith("req-")] == ["req-3", "req-2", "req-1", "req-0"]
        # Of failures none was seen before, so nobody can know whether one was missed.
        assert [row for row in rows if row.endswith("; what came then is not here, but for the last (2)")]
        service.failure("req-4", "a failure", event_id="e-4")
        wait(page, "#failures tr", "a failure")
        service.push("new_result", {"event_id": "e-5", "request_id": "req-5"})
        wait(page, "#results-total", "5")
        proxy.stall()
        proxy.cut()
        wait(page, "#connection[data-state=disconnected]", "disconnected")
        service.push("new_result", {"event_id": "e-6", "request_id": "req-6"})
        proxy.resume()
        wait(page, "#results .gap", "all that came then is here (1)")
        wait(page, "#results td", "req-6")


@pytest.mark.parametrize("end", ["phx_error", "phx_close"])
def test_a_topic_that_ends_and_is_refused_for_a_while_is_said_and_joined_again(end: str, tmp_path: Path) -> None:
    doors = {"public:results": True}

    def join(channel: Channel, _params: object) -> dict[str, Any]:
        if not doors.get(channel.topic, True):
            raise RefuseJoin("closed")
        return {"missed": 1, "complete": True}

    with (
        RunningHub([Definition("public:*", join, lambda _channel, _event, _payload: None)]) as hub,
        opened(f"http://127.0.0.1:{hub.port}/", tmp_path) as page,
    ):
        doors["public:results"] = False
        hub.broadcast("public:results", end, {})
        wait(page, "#connection[data-state=refused]", "public:results refused: closed")
        doors["public:results"] = True
        wait(page, "#connection[data-state=connected]", "connected")
        # The other topic was not lost: what its own join said does not count.
        wait(page, "#results .gap", "all that came then is here (1)")
        hub.broadcast("public:results", "new_result", {"request_id": "req-after"})
        wait(page, "#results td", "req-after")
