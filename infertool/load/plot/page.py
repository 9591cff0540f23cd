"""The report as a self-contained HTML page: no scripts, no fonts, no requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from infertool.load.plot.chart import DARK, LIGHT, STYLES, safe, variables
from infertool.load.plot.charts import NamedRun, charts
from infertool.load.report import Rows, actual, comparison_rows, facts, figure, remarks, times
from infertool.load.tally import Measure

_PAGE_STYLES: Final = Path(__file__).with_name("page.css")
_HEAD: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; {light} }}
@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}
{styles}</style>
</head>
"""
_MEANT = {
    Measure.E2E: "intended send to arrival",
    Measure.REPLY: "intended send to reply",
    Measure.HTTP: "intended send to response",
    Measure.SEND: "send to receipt",
    Measure.SLIP: "intended to actual send",
}


def html(shown: Sequence[NamedRun]) -> str:
    """Return the page for one run, or for several runs with their charts overlaid."""
    title = "Load report" if len(shown) == 1 else f"Load report: {len(shown)} runs"
    styles = _PAGE_STYLES.read_text(encoding="utf-8") + STYLES.read_text(encoding="utf-8")
    head = _HEAD.format(title=safe(title), light=variables(LIGHT), dark=variables(DARK), styles=styles)
    return "".join([head, "<body>\n", *_body(title, shown), "</body>\n</html>\n"])


def _body(title: str, shown: Sequence[NamedRun]) -> Iterable[str]:
    yield f"<header><h1>{safe(title)}</h1>"
    for at, each in enumerate(shown):
        yield _about(each, at if len(shown) > 1 else None)
    yield "</header>\n"
    yield from _remarks(shown)
    if len(shown) == 1:
        yield _figures(shown[0].report)
    yield from _charts(shown)
    if len(shown) > 1:
        yield "<h2>Side by side</h2>"
        yield _table(comparison_rows([each.name for each in shown], [each.report for each in shown]))
    for each in shown:
        of = f" of {each.name}" if len(shown) > 1 else ""
        yield f"<h2>{safe(f'Latencies{of}')}</h2>{_table(times(each.report))}\n"
    for each in shown:
        of = f" of {each.name}" if len(shown) > 1 else ""
        options = [(name, value) for name, value in each.run.info.options.items()]
        yield f"<h2>{safe(f'The run{of}')}</h2>{_list([*facts(each.report), *options])}\n"
    yield f"<footer>written by infertool {safe(shown[0].run.info.version)}; times in milliseconds, "
    yield "end to end from when an event was to be sent</footer>\n"


def _about(each: NamedRun, at: int | None) -> str:
    mark = "" if at is None else f'<i style="background: var(--c{at})"></i>'
    texts = [text for name, text in facts(each.report) if name in ("plan", "to", "started")]
    return f'<p class="about">{mark}<b>{safe(each.name)}</b> · {safe(" · ".join(texts))}</p>'


def _remarks(shown: Sequence[NamedRun]) -> Iterable[str]:
    items = []
    for each in shown:
        name = f"{each.name}: " if len(shown) > 1 else ""
        items += [f'<li class="warn"><b>Note</b> {safe(name + text)}</li>' for text in remarks(each.report)]
        for verdict in each.report["asserts"]:
            word, style = ("Held", "good") if verdict["passed"] else ("Failed", "bad")
            items.append(
                f'<li class="{style}"><b>{word}</b> {safe(name)}<code>{safe(verdict["expression"])}</code>'
                f" ({safe(actual(verdict))})</li>"
            )
    if items:
        yield f'<ul class="remarks">{"".join(items)}</ul>\n'


def _figures(report: Mapping[str, Any]) -> str:
    rate, planned = figure(report["sent_rate"]), figure(report["planned_rate"])
    cards = [("Sent a second", rate, f"of {planned} planned", report["sent"] < report["planned"])]
    measures = report["run"]["measures"]
    if Measure.E2E in measures:
        came = f"of {figure(report['sent'])} sent; {figure(report['failures'])} failed"
        came += f"; {figure(report['queued'])} still queued" if report["queued"] else ""
        cards.append(("Lost", figure(report["lost"]), came, bool(report["lost"])))
    if Measure.REPLY in measures:
        came = f"of {figure(report['sent'])} sent; {figure(report['failures'])} failed"
        cards.append(("Timed out", figure(report["timed_out"]), came, bool(report["timed_out"])))
    if Measure.HTTP in measures:
        came = f"of {figure(report['sent'])} sent; {figure(report['unavailable'])} unavailable"
        cards.append(("Shed", figure(report["shed"]), came, bool(report["unavailable"])))
    main = next(measure for measure in _MEANT if measure in measures)
    for name, title in (("p50_ms", "p50"), ("p99_ms", "p99"), ("p99_9_ms", "p99.9"), ("max_ms", "Longest")):
        cards.append((f"{title}, ms", figure(report[main][name]), _MEANT[main], False))
    items = (
        f"<div><dt>{safe(name)}</dt><dd{' class=bad' if bad else ''}>{value}<small>{safe(note)}</small></dd></div>"
        for name, value, note, bad in cards
    )
    return f'<h2>In short</h2><dl class="figures">{"".join(items)}</dl>\n'


def _charts(shown: Sequence[NamedRun]) -> Iterable[str]:
    yield '<div class="charts">'
    for at, chart in enumerate(charts(shown)):
        yield f'<div class="panel{" wide" if at == 0 else ""}">{chart.svg()}</div>\n'
    yield "</div>\n"


def _table(rows: Rows) -> str:
    head, *body = rows
    top = "".join(f'<th scope="col">{safe(cell)}</th>' for cell in head)
    lines = (
        f'<tr><th scope="row">{safe(row[0])}</th>' + "".join(f"<td>{safe(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in body
    )
    return f'<div class="panel scroll"><table><tr>{top}</tr>{"".join(lines)}</table></div>'


def _list(rows: Rows) -> str:
    lines = (f'<tr><th scope="row">{safe(name)}</th><td class="text">{safe(text)}</td></tr>' for name, text in rows)
    return f'<div class="panel scroll"><table>{"".join(lines)}</table></div>'
