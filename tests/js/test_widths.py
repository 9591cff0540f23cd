"""However long the texts of the page become, it is not wider than its window."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.js.dashboard import opened, read
from tests.js.node import NodeProgram
from tests.support.hub import HubProcess

pytestmark = pytest.mark.browser

BEYOND = """[...document.querySelectorAll("body *")]
  .filter(one => one.getBoundingClientRect().right > document.documentElement.clientWidth)
  .map(one => `${one.tagName} ${one.id} ${one.className} ${one.textContent.slice(0, 30)}`)"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProgram]:
    with HubProcess() as hub, opened(hub.http_url, tmp_path_factory.mktemp("profile")) as program:
        yield program


@pytest.mark.parametrize(
    "texts",
    [
        {"state": "connected", "since": "23 h 59 min"},
        {"state": "disconnected", "since": "123 h 59 min"},
        {"rate": "123,456.7", "results-total": "1,234,567,890", "failures-total": "123,456,789", "success": "99.999 %"},
        {"p50": "123,456.7", "p99": "1,234,567.8"},
        {"filter-error": "there is no field of this name; " * 5, "kept": "the newest 10,000 of 1,234,567,890 are kept"},
    ],
    ids="-".join,
)
@pytest.mark.parametrize("width", [1400, 901, 900, 561, 560, 420, 390, 360])
def test_long_texts_fit(page: NodeProgram, width: int, texts: dict[str, str]) -> None:
    page.send("look", scheme="light", width=width, height=900)
    page.wait_for("looking")
    written = [f'document.getElementById("{name}").textContent = "{text}"' for name, text in texts.items()]
    # In one expression: the page writes some of them each second.
    assert read(page, f"({', '.join(written)}, {BEYOND})") == []
    assert read(page, f"({', '.join(written)}, document.documentElement.scrollWidth)") <= width
