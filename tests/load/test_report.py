"""The report: its schema, its text, and comparisons of runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest

from infertool.load import record, report
from infertool.load.assertions import judge, parse
from infertool.load.report import SCHEMA, document, figures
from infertool.load.tally import Measure
from tests.load.runs import played, texts
from tests.support.present import present

SCHEMA_DOCUMENT = orjson.loads(SCHEMA.read_bytes())
DOC = Path(__file__).parents[2] / "docs" / "loadgen-report.md"


def cut_short(tmp_path: Path) -> record.Run:
    path = tmp_path / "cut.jsonl"
    played(path=path)
    path.write_bytes(path.read_bytes()[:-3])
    return record.read(path)


def validate(report: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA_DOCUMENT, format_checker=jsonschema.FormatChecker())
    validator.validate(orjson.loads(orjson.dumps(report)))


def test_reports_match_the_schema(tmp_path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA_DOCUMENT)
    runs = [
        played(),
        played(measures=(Measure.SLIP,), model="closed"),
        played(seconds=0, warmup=0),
        cut_short(tmp_path),
    ]
    for run in runs:
        report = document(run)
        judge(parse(["lost == 0", "e2e.p99_ms < 1"]), report)
        validate(report)


def test_the_schema_refuses_unknown_keys() -> None:
    with pytest.raises(jsonschema.ValidationError, match="unheard"):
        validate({**document(played()), "unheard": 1})
    with pytest.raises(jsonschema.ValidationError, match="'lost' is a required property"):
        validate({key: value for key, value in document(played()).items() if key != "lost"})


def test_the_documentation_names_every_key() -> None:
    told = set(re.findall(r"^\| `([^`]+)` \|", DOC.read_text(), re.MULTILINE))
    top = SCHEMA_DOCUMENT["properties"]
    times = SCHEMA_DOCUMENT["$defs"]["measure"]["oneOf"][1]["properties"]
    inner = {f"run.{name}" for name in top["run"]["properties"]} | {f"e2e.{name}" for name in times}
    seconds = {f"seconds[].{name}" for name in top["seconds"]["items"]["properties"]}
    asserts = {f"asserts[].{name}" for name in top["asserts"]["items"]["properties"]}
    expected = set(top) - {"run", "seconds", "asserts"} | inner | seconds | asserts
    assert told == expected


def test_the_figures_are_those_of_the_run() -> None:
    run = played(qps=50, seconds=20)
    found = figures(document(run))
    assert (found["sent"], found["sent_rate"], found["planned_rate"], found["result_rate"]) == (1000, 50, 50, 50)
    assert found["failed_share"] == pytest.approx(present(run.counts.failures) / 1000)
    assert (found["cpu_s"], found["cpu_share"]) == (0.4, 0.02)
    percentiles = run.histograms[Measure.E2E].percentiles()
    assert (found["e2e.p99_9_ms"], found["e2e.mean_ms"]) == (percentiles.p99_9, percentiles.mean)


def test_the_summary_has_the_main_figures() -> None:
    facts = texts(report.facts(document(played())))
    assert facts["sent"] == "1,000 of 1,000 planned in 10.0 s, 100/s of 100/s, 3 poison"
    assert facts["came out"] == "986 results + 14 failures (14 dead letters), 0 lost, 0 duplicates, 5 out of order"
    assert [row[0] for row in report.times(document(played(measures=(Measure.SLIP,))))] == ["ms", "slip"]


def test_a_closed_model_and_a_cut_file_are_remarked_on(tmp_path: Path) -> None:
    assert report.remarks(document(played())) == []
    assert "closed model" in report.remarks(document(played(model="closed")))[0]
    assert "ends early" in report.remarks(document(cut_short(tmp_path)))[0]


def test_runs_are_compared_figure_by_figure() -> None:
    reports = [document(played()), document(played(qps=200, measures=(Measure.SLIP,)))]
    rows = {row.name: row for row in report.compare(reports)}
    assert (rows["sent"].values, rows["sent"].differences, rows["sent"].ratios) == ((1000, 2000), (1000,), (2.0,))
    assert (rows["late"].differences, rows["late"].ratios) == ((0,), (None,))
    assert (rows["lost"].values, rows["lost"].differences) == ((0, None), (None,))
    shown = {row[0]: row[1:] for row in report.comparison_rows(["a", "b"], reports)}
    assert shown["sent"] == ("1,000", "2,000", "+1,000", "2.000x")
    assert "late" not in shown
    assert shown["lost"] == ("0", "-", "-", "-")
