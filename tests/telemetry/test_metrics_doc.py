"""docs/metrics.md lists the metrics as the code has them; `python -m tests.telemetry.test_metrics_doc` writes it."""

from __future__ import annotations

from pathlib import Path

from infertool.telemetry.details import TIMES_S
from infertool.telemetry.metrics import DEFINITIONS, SIZES

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
BEGIN, END = "<!-- the table is written by tests/telemetry/test_metrics_doc.py -->\n", "<!-- end of the table -->\n"


def table() -> str:
    rows = ["| metric | type | unit | labels | meaning |", "|---|---|---|---|---|"]
    rows += [
        f"| `{each.full_name}` | {each.kind} | {each.unit or '-'} | {', '.join(each.labels) or '-'} | {each.meaning} |"
        for each in DEFINITIONS.values()
    ]
    return "\n".join(rows) + "\n"


def test_the_table_is_that_of_the_code() -> None:
    text = DOCUMENT.read_text()
    assert text.partition(BEGIN)[2].partition(END)[0] == table(), "run python -m tests.telemetry.test_metrics_doc"


def test_the_buckets_are_those_of_the_code() -> None:
    text = DOCUMENT.read_text()
    assert ", ".join(f"{edge:g}" for edge in TIMES_S) in text
    assert ", ".join(map(str, SIZES)) in text


def test_names_and_labels_are_prometheus_own() -> None:
    for each in DEFINITIONS.values():
        assert each.full_name.replace("_", "").isascii()
        assert each.full_name == each.full_name.lower()
        assert each.meaning.endswith(".")


if __name__ == "__main__":
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    DOCUMENT.write_text(before + BEGIN + table() + END + rest.partition(END)[2])
