"""The report as a PNG, from the same SVG charts as the page. Needs the extra `plots`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Final

from infertool.errors import UsageError
from infertool.load.plot.chart import HEIGHT, LIGHT, WIDTH, fixed, safe
from infertool.load.plot.charts import GAP, WIDE, NamedRun, charts
from infertool.load.report import actual, facts, remarks

# The only font used, so that a picture looks the same on a server without fonts.
FONT: Final = Path(__file__).with_name("DejaVuSans.ttf")
_MARGIN, _LINE = 20, 19
_LETTERS, _SHARPNESS = 160, 2.0


def png(shown: Sequence[NamedRun]) -> bytes:
    """Return the PNG. Raises UsageError if resvg-py is not installed."""
    try:
        import resvg_py  # noqa: PLC0415 - an extra, and only for this
    except ImportError:
        raise UsageError(
            "--png needs resvg-py, which is not installed", advice="pip install 'infertool[plots]'"
        ) from None
    return resvg_py.svg_to_bytes(
        svg_string=svg(shown),
        zoom=_SHARPNESS,
        skip_system_fonts=True,
        font_files=[str(FONT)],
        font_family="DejaVu Sans",
        sans_serif_family="DejaVu Sans",
    )


def svg(shown: Sequence[NamedRun]) -> str:
    """Return the picture as SVG."""
    styled = [line for each in shown for line in [*_lines(each), ("fact", "")]][:-1]
    lines = [(style, line) for style, text in styled for line in wrap(text, _LETTERS) or [""]]
    top = _MARGIN + len(lines) * _LINE + GAP
    drawn = charts(shown)
    columns = [_MARGIN, _MARGIN + WIDTH + GAP]
    places = [(columns[0], top)] + [
        (columns[at % 2], top + (1 + at // 2) * (HEIGHT + GAP)) for at in range(len(drawn) - 1)
    ]
    width, height = WIDE + 2 * _MARGIN, places[-1][1] + HEIGHT + _MARGIN
    panels = (
        f'<rect class="panel" x="{x}" y="{y}" width="{chart.width}" height="{HEIGHT}" rx="8"/>'
        for chart, (x, y) in zip(drawn, places, strict=True)
    )
    texts = (
        f'<text class="{style}" x="{_MARGIN}" y="{_MARGIN + (at + 1) * _LINE - 5}">{safe(text)}</text>'
        for at, (style, text) in enumerate(lines)
    )
    style = fixed(LIGHT) + (
        f".panel {{ fill: {LIGHT['panel']}; stroke: {LIGHT['line']} }} text {{ font-family: 'DejaVu Sans' }}"
        f" .fact {{ font-size: 13px; fill: {LIGHT['quiet']} }} .name {{ font-size: 15px; fill: {LIGHT['text']} }}"
        + "".join(f" .{name} {{ font-size: 13px; fill: {LIGHT[name]} }}" for name in ("good", "warn", "bad"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<style>{style}</style><rect width="{width}" height="{height}" fill="{LIGHT["ground"]}"/>'
        f"{''.join(panels)}{''.join(texts)}"
        f"{''.join(chart.svg(at=place) for chart, place in zip(drawn, places, strict=True))}</svg>"
    )


def _lines(each: NamedRun) -> list[tuple[str, str]]:
    lines = [("name", each.name)]
    lines += [("fact", f"{name}: {text}") for name, text in facts(each.report) if name not in ("to", "processor")]
    lines += [("warn", text) for text in remarks(each.report)]
    for verdict in each.report["asserts"]:
        word, style = ("held", "good") if verdict["passed"] else ("failed", "bad")
        lines.append((style, f"{word}: {verdict['expression']} ({actual(verdict)})"))
    return lines
