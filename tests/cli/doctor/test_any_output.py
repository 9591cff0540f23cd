"""Whatever a server says of itself: each form of doctor's output can still be read by what it is for."""

from __future__ import annotations

import json
import math

from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from infertool.app.doctor.check import NAMES
from infertool.app.doctor.result import Finding, Result, Status
from infertool.cli.doctor import view
from infertool.text import json_text
from infertool.text.sanitize import clean
from tests.cli.doctor.test_output import _NAGIOS
from tests.support.examples import examples

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from([
    'a"b', "a\\", "a\\n", "a\nb", "a\rb", "'x'=1", "a | b", "\x1b[31m", "\u2028", "日本語", "{}", "}", " ", "",
])  # fmt: skip
NUMBERS = st.none() | st.floats() | st.integers(-(10**9), 10**12).map(float)
RESULTS = st.lists(
    st.builds(
        lambda name, subject, took_s, **finding: Result(
            name=name, subject=subject, finding=Finding(**finding), took_s=took_s
        ),
        name=st.sampled_from(sorted(NAMES)), subject=TEXTS, took_s=st.floats(0, 1e6), status=st.sampled_from(Status),
        value=TEXTS, hint=TEXTS, number=NUMBERS, unit=st.sampled_from(["", "seconds", "bytes"]), blocked_by=TEXTS,
    ),
    min_size=1, max_size=4, unique_by=lambda each: (each.name, each.subject),
)  # fmt: skip


def one(subject: str, number: float | None = 1.0, value: str = "x") -> list[Result]:
    finding = Finding(status=Status.WARN, value=value, hint="", number=number)
    return [Result(name="broker.tcp", subject=subject, finding=finding, took_s=0.0)]


@examples(20)
@given(results=RESULTS)
def test_any_result_is_a_sample_with_its_labels(results: list[Result]) -> None:
    text = "\n".join(view.prometheus(results)).encode().decode() + "\n"
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = [
        (sample.labels["check"], sample.labels["subject"], sample.value)
        for sample in samples
        if sample.name == "infertool_doctor_status"
    ]
    shown = [(each.name, each.subject, view._NUMBERS[each.status]) for each in results]
    assert found == shown


@examples(20)
@given(results=RESULTS)
@example(one("a\nb"))
@example(one("a | b"))
@example(one("x", math.nan))
@example(one("x", value="\x1b[31m"))
def test_any_result_is_one_line_for_nagios(results: list[Result]) -> None:
    line = clean(view.nagios(results))
    assert _NAGIOS.fullmatch(line), line


@examples(20)
@given(results=RESULTS)
def test_any_result_is_json(results: list[Result]) -> None:
    document = json.loads(json_text.dumps(view.document(results)))
    assert [each["check"] for each in document["checks"]] == [each.name for each in results]


@examples(20)
@given(results=RESULTS, width=st.sampled_from([0, 40, 80]))
def test_any_result_is_lines_without_control_characters(results: list[Result], width: int) -> None:
    lines = view.table(results, width)
    assert all(line.isprintable() for line in lines)
    titles = [clean(f"{each.name} {each.subject}".rstrip()).partition(".")[2] for each in results]
    assert all(title in "\n".join(lines) for title in titles)
