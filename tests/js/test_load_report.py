"""The page of a load report in headless Chromium, from a file, as people open it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infertool.load.assertions import judge, parse
from infertool.load.plot.charts import NamedRun
from infertool.load.plot.page import html
from infertool.load.report import document
from tests.js.node import NodeProgram
from tests.js.packages import BROWSER
from tests.load.runs import played
from tests.support.install import apt, npm
from tests.support.present import present

pytestmark = pytest.mark.browser
HOSTILE = "<script>document.title='owned'</script><img src=http://192.0.2.1/x.png>"
# The browser's program, and the report that it shows.
Page = tuple[NodeProgram, Path]


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    if not shutil.which("chromium"):
        apt("chromium")
    shown = []
    for name, typical_s in (("before.jsonl", 0.05), (HOSTILE, 0.1)):
        run = played(typical_s=typical_s, queue=HOSTILE)
        report = document(run)
        judge(parse(["e2e.p50_ms < 60"]), report)
        shown.append(NamedRun(name, run, report))
    file = tmp_path / "report.html"
    file.write_text(html(shown))
    arguments = [str(npm(BROWSER)), present(shutil.which("chromium")), file.as_uri(), str(tmp_path / "profile")]
    with NodeProgram("browser.mjs", *arguments) as program:
        program.wait_for("loaded")
        yield program, file
        program.send("errors")
        assert program.wait_for("errors")["messages"] == []


def read(program: NodeProgram, expression: str) -> Any:
    program.send("read", expression=expression)
    return program.wait_for("value", expression=expression)["value"]


def test_the_page_is_drawn_and_asks_nobody(page: Page) -> None:
    program, file = page
    verdicts = read(program, "[...document.querySelectorAll('.remarks b')].map(each => each.textContent)")
    assert verdicts == ["Held", "Failed"]
    # Every chart is as wide as its panel, and every line of it is seen.
    charts = read(program, "[...document.querySelectorAll('.chart')].map(each => each.getBoundingClientRect().width)")
    assert len(charts) == 7
    assert min(charts) > 300
    lines = "[...document.querySelectorAll('.chart > .line')]"
    assert read(program, f"{lines}.every(each => each.getTotalLength() > 100)")
    assert "none" not in read(program, f"{lines}.map(each => getComputedStyle(each).stroke)")
    assert read(program, "document.title") == "Load report: 2 runs"
    assert read(program, "document.querySelectorAll('script, img').length") == 0
    program.send("requests")
    assert set(program.wait_for("requests")["urls"]) == {file.as_uri()}
