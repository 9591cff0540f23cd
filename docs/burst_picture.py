"""Make docs/burst.png: what `infertool demo --burst` shows, as charts.

    .venv/bin/infertool demo --burst -o json > burst.json && .venv/bin/python -m docs.burst_picture burst.json

The run takes a minute and a half. It needs resvg-py (pip install '.[plots]').
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import resvg_py

from infertool.load.plot.chart import HEIGHT, LIGHT, Chart, Line, Span, fixed, linear, number, safe
from infertool.load.plot.charts import GAP, WIDE
from infertool.load.plot.picture import FONT

PICTURE = Path(__file__).with_name("burst.png")
MARGIN, ROW, COLUMNS = 20, 22, (0, 150, 250, 350, 460, 570, 680, 830)
COLOURS = ("c0", "c2", "c1")


def main() -> None:
    """Draw the run in the file that the command line names."""
    found = json.loads(Path(sys.argv[1]).read_text())
    PICTURE.write_bytes(
        resvg_py.svg_to_bytes(
            svg_string=svg(found),
            zoom=2,
            skip_system_fonts=True,
            font_files=[str(FONT)],
            font_family="DejaVu Sans",
            sans_serif_family="DejaVu Sans",
        )
    )


def svg(found: dict[str, Any]) -> str:
    """Return the picture: answers a second, requests that wait, and a table of the classes."""
    seconds = found["seconds"]
    names = list(found["classes"])
    end = seconds[-1]["at_s"]
    burst = [each["at_s"] for each in seconds if each["burst"]]
    span = Span(burst[0], burst[-1] + 1, ["the burst: ten times the capacity"])
    served = [
        Line(colour, [(each["at_s"] + 0.5, each["served"].get(name, 0)) for each in seconds])
        for name, colour in zip(names, COLOURS, strict=True)
    ]
    capacity = Line("plan", [(0, found["capacity_per_s"]), (end, found["capacity_per_s"])])
    x = linear(0, end, number, marks=14)
    charts = [
        Chart(
            "Served a second", x, linear(0, found["capacity_per_s"] * 1.4, number), "seconds", [capacity, *served],
            [("capacity", "plan"), *zip(names, COLOURS, strict=True)], shaded=span, width=WIDE,
        ),
        Chart(
            "Requests", x, linear(0, max(max(e["sent"], e["open"]) for e in seconds) * 1.1, number), "seconds",
            [
                Line(style, [(each["at_s"] + 0.5, each[key]) for each in seconds])
                for key, style in (("sent", "plan"), ("refused", "c1"), ("open", "c0"))
            ],
            [("sent a second", "plan"), ("refused a second (429)", "c1"), ("waiting", "c0")], shaded=span, width=WIDE,
        ),
    ]  # fmt: skip
    table = rows(found)
    top = MARGIN + len(charts) * (HEIGHT + GAP)
    height = top + len(table) * ROW + MARGIN
    panels = "".join(
        f'<rect class="panel" x="{MARGIN}" y="{MARGIN + at * (HEIGHT + GAP)}" width="{WIDE}" height="{HEIGHT}" rx="8"/>'
        f"{chart.svg(at=(MARGIN, MARGIN + at * (HEIGHT + GAP)))}"
        for at, chart in enumerate(charts)
    )
    texts = "".join(
        f'<text class="cell" x="{MARGIN + column}" y="{top + (at + 1) * ROW - 6}">{safe(cell)}</text>'
        for at, row in enumerate(table)
        for column, cell in zip(COLUMNS, row, strict=False)
    )
    style = fixed(LIGHT) + (
        f".panel {{ fill: {LIGHT['panel']}; stroke: {LIGHT['line']} }} text {{ font-family: 'DejaVu Sans' }}"
        f" .cell {{ font-size: 14px; fill: {LIGHT['text']} }}"
    )
    width = WIDE + 2 * MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<style>{style}</style><rect width="{width}" height="{height}" fill="{LIGHT["ground"]}"/>{panels}{texts}</svg>'
    )


def rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the table."""
    table = [("", "sent", "served", "refused", "p50", "p99", "Retry-After", "served when they came back")]
    for name, each in found["classes"].items():
        told = each["retry_after_s"]
        wait = f"{told['least']:g} to {told['most']:g} s" if told else "none"
        back = f"{each['served_on_return']} of {each['returned']}"
        times = (f"{each[key]:,.0f} ms" for key in ("p50_ms", "p99_ms"))
        table.append((name, str(each["sent"]), str(each["served"]), str(each["refused"]), *times, wait, back))
    return table


if __name__ == "__main__":
    main()
