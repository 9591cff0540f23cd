"""Toasts have a place of their own, at every width: nothing sticks out, and nothing lies under them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.js.dashboard import Service, opened, read, stop_clock, until, wait
from tests.js.node import NodeProgram
from tests.support.hub import HubProcess

pytestmark = pytest.mark.browser

LONG = "connection to https://models.example.com/fraud/predict was refused, for the third time in a row " * 3
BOXES = """[...document.querySelectorAll("{selector}")].map(one => {{
  const {{ left, right, top, bottom }} = one.getBoundingClientRect(); return {{ left, right, top, bottom }};
}})"""


@pytest.fixture(scope="module")
def hub() -> Iterator[HubProcess]:
    with HubProcess() as running:
        yield running


@pytest.fixture(scope="module")
def page(hub: HubProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProgram]:
    with opened(hub.http_url, tmp_path_factory.mktemp("profile")) as program:
        stop_clock(program)
        yield program


def boxes(page: NodeProgram, selector: str) -> list[dict[str, float]]:
    found: list[dict[str, float]] = read(page, BOXES.format(selector=selector))
    return found


def overlap(one: dict[str, float], other: dict[str, float]) -> bool:
    across = one["left"] < other["right"] and other["left"] < one["right"]
    return across and one["top"] < other["bottom"] and other["top"] < one["bottom"]


@pytest.mark.parametrize("title", ["one word", "W" * 300, "two words " * 40])
@pytest.mark.parametrize("width", [1400, 901, 900, 800, 420, 390])
def test_toasts_fit_and_hide_nothing(hub: HubProcess, page: NodeProgram, width: int, title: str) -> None:
    page.send("look", scheme="light", width=width, height=900)
    page.wait_for("looking")
    page.send("press", keys=["Escape"])
    page.wait_for("pressed")
    with Service(hub) as service:
        for number in range(20):
            service.push("inference_failed", {"request_id": f"r{number}", "error_type": title, "error": LONG})
        service.alert(f"queue depth {title}", "firing")
        service.alert("confidence", "resolved")
    wait(page, ".toast[data-kind=failed]", LONG[:20])
    wait(page, ".toast[data-kind=resolved]", "confidence")
    wait(page, ".toast[data-kind=firing]", "queue depth")
    toasts, buttons = boxes(page, ".toast"), boxes(page, ".toast button")
    assert len(toasts) == len(buttons) == 3
    for box in [*toasts, *buttons]:
        assert 0 <= box["left"] < box["right"] <= width
        assert 0 <= box["top"] < box["bottom"] <= 900
    assert read(page, "document.documentElement.scrollWidth") <= width
    others = boxes(page, "header, .figures, .tools, main .panel")
    assert not [(toast, other) for toast in toasts for other in others if overlap(toast, other)]
    # The button is the topmost thing where it is, and works.
    box = boxes(page, ".toast button")[2]
    spot = f"{(box['left'] + box['right']) / 2}, {(box['top'] + box['bottom']) / 2}"
    assert read(page, f"document.elementFromPoint({spot}).closest('.toast') !== null")
    read(page, f"document.elementFromPoint({spot}).click(), true")
    until(page, "document.querySelectorAll('.toast').length === 2")


def test_without_toasts_their_place_is_the_lists(page: NodeProgram) -> None:
    page.send("look", scheme="light", width=1400, height=900)
    page.wait_for("looking")
    page.send("press", keys=["Escape"])
    page.wait_for("pressed")
    assert max(box["bottom"] for box in boxes(page, "main .panel")) == pytest.approx(900 - 18, abs=1)
