"""docs/metrics.md lists the metrics as the code has them; `python -m tests.telemetry.test_metrics_doc` writes it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from infertool.embedded import endpoint as embedded
from infertool.load import endpoint as load
from infertool.telemetry.details import TIMES_S
from infertool.telemetry.metric_families import Definition
from infertool.telemetry.metrics import DEFINITIONS, SIZES

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
TABLES: dict[str, Iterable[Definition]] = {
    "consume": DEFINITIONS.values(),
    "loadgen": load.DEFINITIONS,
    "dev": embedded.DEFINITIONS,
}
END = "<!-- end of the table -->\n"


def begin(command: str) -> str:
    return f"<!-- the table of {command} is written by tests/telemetry/test_metrics_doc.py -->\n"


def table(definitions: Iterable[Definition]) -> str:
    rows = ["| metric | type | unit | labels | meaning |", "|---|---|---|---|---|"]
    rows += [
        f"| `{each.full_name}` | {each.kind} | {each.unit or '-'} | {', '.join(each.labels) or '-'} | {each.meaning} |"
        for each in definitions
    ]
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize("command", TABLES)
def test_the_table_is_that_of_the_code(command: str) -> None:
    text = DOCUMENT.read_text()
    written = text.partition(begin(command))[2].partition(END)[0]
    assert written == table(TABLES[command]), "run python -m tests.telemetry.test_metrics_doc"


def test_the_buckets_are_those_of_the_code() -> None:
    text = DOCUMENT.read_text()
    assert ", ".join(f"{edge:g}" for edge in TIMES_S) in text
    assert ", ".join(map(str, SIZES)) in text


@pytest.mark.parametrize("command", TABLES)
def test_names_and_labels_are_prometheus_own(command: str) -> None:
    for each in TABLES[command]:
        assert each.full_name.replace("_", "").isascii()
        assert each.full_name == each.full_name.lower()
        assert each.meaning.endswith(".")


if __name__ == "__main__":
    for name, definitions in TABLES.items():
        before, _, rest = DOCUMENT.read_text().partition(begin(name))
        DOCUMENT.write_text(before + begin(name) + table(definitions) + END + rest.partition(END)[2])
