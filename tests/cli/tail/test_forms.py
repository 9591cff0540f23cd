"""Fields, templates and columns of events, escaped for a terminal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from infertool.channels.event import MISSING, ChannelEvent, parse_path
from infertool.cli.common.eventlines import Columns, Template
from infertool.cli.tail.view import FORMS, form_of
from infertool.errors import UsageError
from infertool.text.sanitize import clean_json

PAYLOAD = {
    "request_id": "r1", "prediction": {"class": "A", "confidence": 0.98765, "n": 3}, "features": [1.5, [2]],
    "none": None, "yes": True, "topic": "inner", "a-b": 1,
}  # fmt: skip
ARRIVAL = ChannelEvent("public:results", "new_result", PAYLOAD, 1.5, "prod")
EVIL = ["\x1b[2J", "\x1b]52;c;x\x07", "\u202e", "\x9b31m", "\r", "\n", "\0", "\u2066", "\u2028"]
DEEP = json.loads("[" * 900 + "]" * 900)
ODD = [
    None,
    [],
    {},
    1e300,
    b"\0\xff",
    DEEP,
    {"prediction": DEEP},
    {"prediction": []},
    {"request_id": {"a": 1}},
    "x" * 5_000_000,
]


def test_a_readable_line_ends_with_the_trace_also_where_it_is_cut() -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    fields = {"request_id": "r", "x": "y" * 1000, "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    (line,) = FORMS["pretty"]([arrival(fields)])
    assert line.endswith(f"  trace {trace}")
    assert len(line) <= 400
    (line,) = FORMS["pretty"]([arrival({**fields, "traceparent": "junk\x1b[2J"})])
    assert "trace 4bf" not in line


def test_an_alert_is_shown_with_its_state() -> None:
    payload = {"rule": "Backlog", "state": "firing", "severity": "page", "value": 7, "threshold": 5, "since": "x"}
    for fields, words in (
        (payload, "alert  Backlog  FIRING page: 7 (threshold 5)"),
        ({**payload, "state": "resolved", "summary": "7 wait"}, "alert  Backlog  RESOLVED page: 7 wait"),
        ({"rule": 5}, "alert  5   : "),
        ({"rule": None}, 'alert  {"rule":null}'),
    ):
        (line,) = FORMS["pretty"]([ChannelEvent("public:alerts", "alert", fields, 0.0)])
        assert f"public:alerts {words}" in line


def arrival(payload: Any) -> ChannelEvent:
    return ChannelEvent("t", "e", payload, 0.0)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("request_id", "r1"), ("prediction.class", "A"), ("features[0]", 1.5), ("features[1][0]", 2), ("none", None),
        ("a-b", 1), ("topic", "public:results"), ("payload.topic", "inner"), ("event", "new_result"), ("at", 1.5),
        ("source", "prod"), ("payload", PAYLOAD), ("nope", MISSING), ("prediction.class.x", MISSING),
        ("features[2]", MISSING), ("prediction[0]", MISSING), ("features.class", MISSING), ("topic.x", MISSING),
    ],
)  # fmt: skip
def test_paths(path: str, value: Any) -> None:
    assert parse_path(path).of(ARRIVAL) == value


@pytest.mark.parametrize(
    "text", ["", ".", "a.", ".a", "a..b", "a[", "a[x]", "a[-1]", "[0]", "a b", "a]", "a{", "a[0]b"]
)
def test_invalid_paths(text: str) -> None:
    with pytest.raises(UsageError, match="no path to a field"):
        parse_path(text)


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("{request_id} {prediction.class}", "r1 A"), ("{prediction.confidence:.2f}", "0.99"), ("{ request_id }", "r1"),
        ("{prediction.n:.1f}", "3.0"), ("{request_id:.2f}", "r1"), ("{yes:.2f}", "true"), ("{none}", "null"),
        ("{nope}|{nope:.2f}", "-|-"), ("{{{request_id}}}", "{r1}"), ("{{}}", "{}"), ("", ""), ("plain", "plain"),
        ("{features[1]}", "[2]"), ("{prediction.__class__}", "-"), ("{payload.topic} {topic}", "inner public:results"),
    ],
)  # fmt: skip
def test_templates(template: str, line: str) -> None:
    assert Template(template).line(ARRIVAL) == line


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{a", "the { at character 1"), ("x }", "the } at character 3"), ("{}", "no path"), ("{a:d}", "'d'"),
        ("{a:>10}", "'>10'"), ("{a:}", "''"), ("{a!r} {", "the { at character 7"), ("{a.{b}}", "the { at character 1"),
    ],
)  # fmt: skip
def test_invalid_templates(template: str, words: str) -> None:
    with pytest.raises(UsageError) as error:
        Template(template)
    assert words in str(error.value)
    assert error.value.advice


@given(st.text())
def test_any_text_is_a_template_or_a_usage_error(template: str) -> None:
    try:
        made = Template(template)
    except UsageError:
        return
    assert isinstance(made.line(ARRIVAL), str)


@pytest.mark.parametrize("evil", EVIL)
def test_texts_are_escaped_on_the_terminal(evil: str) -> None:
    event = ChannelEvent(
        "t", "e", {"x": evil, evil: evil, "status": "FAILED", "error": evil, "error_type": [evil]}, 0.0
    )
    shown = [
        Template("{x} {payload} {error:.2f}").line(event),
        *Columns([parse_path("x"), parse_path("payload")]).lines([event]),
        *FORMS["pretty"]([event]),
        *(clean_json(line) for line in FORMS["jsonl"]([event])),
    ]
    assert not [line for line in shown if evil in line or not line.isprintable()]
    assert json.loads(shown[-1])["payload"] == event.payload


@pytest.mark.parametrize("payload", ODD, ids=range(len(ODD)))
def test_unusual_payloads_have_a_line_in_every_format(payload: Any) -> None:
    forms = [*FORMS.values(), form_of("jsonl", fields="request_id,prediction.class", template=None, several=False)]
    forms += [
        Columns([parse_path("request_id"), parse_path("payload")]).lines,
        form_of(None, fields=None, template="{payload}", several=False),
    ]
    for form in forms:
        assert len(form([arrival(payload)])[-1].splitlines()) == 1


def test_columns_are_aligned_with_wide_characters() -> None:
    columns = Columns([parse_path(name) for name in ("a", "b", "c")])
    lines = columns.lines([arrival({"a": "日本語", "b": 1, "c": "x"}), arrival({"b": None, "c": "y" * 300})])
    lines += columns.lines([arrival({"a": "z" * 100, "b": "日" * 30, "c": "end"}), arrival({})])
    assert lines[:2] == ["a       b     c", "日本語  1     x"]
    assert lines[2].startswith("-       null  yyy")
    assert cell_len(lines[2]) == 14 + 200
    assert lines[3].startswith("z" * 39 + "…  " + "日" * 19)
    assert lines[3].endswith("  end")
    assert cell_len(lines[3]) == 40 + 2 + 40 + 2 + 3
    assert lines[4].split() == ["-", "-", "-"]


def test_chosen_fields_as_json() -> None:
    form = form_of("jsonl", fields="request_id, prediction.class,nope", template=None, several=True)
    [line] = form([ARRIVAL])
    assert json.loads(line) == {"source": "prod", "request_id": "r1", "prediction.class": "A", "nope": None}


@pytest.mark.parametrize(
    ("output", "fields", "template"),
    [("raw", "a", None), ("jsonl", None, "{a}"), (None, "a", "{a}"), ("pretty", "a,,b", None), ("pretty", "", None)],
)
def test_contradictory_options(output: str, fields: str, template: str | None) -> None:
    with pytest.raises(UsageError):
        form_of(output, fields=fields, template=template, several=False)
