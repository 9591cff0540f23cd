"""The page and the picture: self-contained, with any text of a file escaped."""

from __future__ import annotations

import builtins
import struct
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from infertool.errors import UsageError
from infertool.load import record
from infertool.load.assertions import judge, parse
from infertool.load.plot import charts, page, picture
from infertool.load.plot.charts import NamedRun
from infertool.load.report import document
from infertool.load.tally import Measure
from tests.load.runs import played
from tests.support.present import present

HOSTILE = "<script>document.title='owned'</script>\"'&<img src=http://192.0.2.1/x.png onerror=alert(1)>\x1b[31m"
VOID = {"meta", "link"}


class Page(HTMLParser):
    """Reads a page strictly: every element that is opened is closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def shown(
    name: Any = "run.jsonl", run: record.Run | None = None, expressions: tuple[Any, ...] | list[Any] = ()
) -> NamedRun:
    run = run or played()
    report = document(run)
    judge(parse(expressions), report)
    return NamedRun(name, run, report)


def charts_of(text: str) -> list[ET.Element]:
    found = []
    while "<svg" in text:
        one, _, text = text[text.index("<svg") :].partition("</svg>")
        found.append(ET.fromstring(f"{one}</svg>"))
    return found


def runs_of_every_kind(tmp_path: Path) -> dict[str, Any]:
    cut = tmp_path / "cut.jsonl"
    played(path=cut)
    cut.write_bytes(cut.read_bytes()[:5000])
    return {
        "whole": played(),
        "slip only": played(measures=(Measure.SLIP,), model="closed"),
        "cut short": record.read(cut),
        "nothing": played(seconds=0, warmup=0),
        "one second": played(seconds=1, warmup=0, qps=1),
        "long": played(seconds=900, qps=2),
    }


def test_every_kind_of_run_is_drawn(tmp_path: Path) -> None:
    for name, run in runs_of_every_kind(tmp_path).items():
        text = page.html([shown(name, run)])
        assert name in Page(text).text
        assert len(charts_of(text)) == 1 + 2 * len(run.histograms)
        ET.fromstring(picture.svg([shown(name, run)]))


def test_runs_of_different_kinds_are_overlaid(tmp_path: Path) -> None:
    kinds = list(runs_of_every_kind(tmp_path).items())
    for several in (kinds[:4], kinds[2:]):
        text = page.html([shown(name, run) for name, run in several])
        assert all(name in Page(text).text for name, _ in several)
        assert len(charts_of(text)) == 7
        ET.fromstring(picture.svg([shown(name, run) for name, run in several]))


def test_verdicts_notes_and_options_are_on_the_page() -> None:
    text = Page(page.html([shown(expressions=["lost == 0", "e2e.p99_ms < 1"])])).text
    assert "Held lost == 0 (lost = 0)" in text
    assert "Failed e2e.p99_ms < 1 (e2e.p99_ms = " in text
    assert "--warmup" in text
    assert "closed model" in Page(page.html([shown(run=played(model="closed"))])).text


def test_texts_of_a_file_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    played(path=path, plan=HOSTILE, broker=HOSTILE, queue=HOSTILE, version=HOSTILE, options={HOSTILE: HOSTILE})
    hostile = shown(HOSTILE, record.read(path))
    for several in ([hostile], [hostile, shown()]):
        read = Page(page.html(several))
        assert not {"script", "img", "iframe", "object", "a"} & set(read.tags)
        assert not [name for name, _ in read.attributes if name.startswith("on") or name in ("src", "srcset")]
        assert [value for name, value in read.attributes if name == "href"] == ["data:,"]
        assert HOSTILE.replace("\x1b", "\\x1b") in read.text
        assert charts_of(page.html(several))
        ET.fromstring(picture.svg(several))


def test_the_page_makes_no_requests() -> None:
    text = page.html([shown(), shown("other.jsonl")]).replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "//" not in text.replace("stomp://localhost", "")
    assert "url(" not in text
    assert "default-src 'none'" in text


def test_lines_go_through_the_figures() -> None:
    run = played(seconds=4, warmup=0)
    rate = charts.charts([shown(run=run)])[0]
    drawn = next(line for line in rate.lines if line.style == "c0")
    assert list(drawn.points) == [(second.t + 0.5, second.sent) for second in run.seconds]
    svg = ET.fromstring(rate.svg())
    sent = next(each for each in svg if each.get("class") == "line c0")
    heights = {float(place.split()[1]) for place in present(sent.get("d"))[1:].split("L")}
    mark = next(each for each in svg if each.text == "100")
    assert heights == {float(present(mark.get("y"))) - 4}


def test_an_unmeasured_measure_is_not_drawn() -> None:
    run = played()
    closed = replace(run, info=replace(run.info, model="closed", measures=(Measure.E2E,)))
    titles = [chart.title for chart in charts.charts([shown(run=closed)])]
    assert titles == ["Events a second", "End to end: latency over time", "End to end: percentiles"]
    assert "slip" not in document(closed)["seconds"][0]


def test_a_long_run_has_its_highest_times_and_a_bounded_number_of_points() -> None:
    run = played(seconds=3600, qps=1, measures=(Measure.SLIP,))
    rate, times, _ = charts.charts([shown(run=run)])
    assert {len(line.points) for chart in (rate, times) for line in chart.lines} == {361}
    assert max(present(y) for _, y in times.lines[0].points) == max(
        present(s.latency_ms[Measure.SLIP].max) for s in run.seconds
    )
    assert {y for line in rate.lines for _, y in line.points} == {1}
    assert len(times.spans) == 361


def test_the_percentile_curve_is_the_histograms() -> None:
    run = played()
    curve = next(chart for chart in charts.charts([shown(run=run)]) if chart.title == "End to end: percentiles")
    figures = run.histograms[Measure.E2E].percentiles()
    points = curve.lines[0].points
    for share, expected in ((0.5, figures.p50), (0.9, figures.p90), (0.99, figures.p99)):
        at = 1 / (1 - share)
        assert next(y for (_, y), (x, _) in pairwise(points) if x >= at * (1 - 1e-9)) == expected
    assert points[-1][1] == figures.max


def test_a_picture_is_as_large_as_its_charts_and_has_its_text() -> None:
    run = played(measures=(Measure.SLIP,))
    data = picture.png([shown(run=run)])
    assert data.startswith(b"\x89PNG")
    drawing = ET.fromstring(picture.svg([shown(run=run)]))
    assert struct.unpack(">II", data[16:24]) == (
        2 * int(present(drawing.get("width"))),
        2 * int(present(drawing.get("height"))),
    )
    assert picture.png([shown("another name", run=run)]) != data


def test_without_the_renderer_the_error_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: Any, *arguments: Any, **named: Any) -> ModuleType:
        if name == "resvg_py":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UsageError, match=r"pip install 'infertool\[plots\]'"):
        picture.png([shown()])
