"""Every value of a header has a text and a type, and comes back from them."""

from __future__ import annotations

import contextlib
import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertool.brokers import header_types
from infertool.brokers.header_types import HeaderTypeError, from_text, from_texts, to_text, to_texts

EXAMPLES = {
    "text": ("text", "text", ""),
    "a text that looks like a number": ("7", "7", ""),
    "int": (-7, "-7", "int"),
    "least": (-(2**63), "-9223372036854775808", "int"),
    "most": (2**64 - 1, "18446744073709551615", "int"),
    "float": (0.5, "0.5", "float"),
    "large": (1e300, "1e+300", "float"),
    "endless": (-math.inf, "-inf", "float"),
    "bool": (True, "true", "bool"),
    "bytes": (b"\0\xff", "AP8=", "bytes"),
    "time": (datetime(2026, 1, 31, 3, tzinfo=UTC), "2026-01-31T03:00:00Z", "time"),
    "decimal": (Decimal("12.50"), "12.50", "decimal"),
    "null": (None, "", "null"),
    "list": ([1, 1.0, True, None, "x"], '[1,1.0,true,null,"x"]', "json"),
    "table": ({"a": b"\0", "b": {"c": Decimal("1.0")}}, '{"a":{"$bytes":"AA=="},"b":{"c":{"$decimal":"1.0"}}}', "json"),
    "bytes in a list": (["\udcff"], '["\\udcff"]', "json"),
    "a table that looks like a type": ({"$bytes": "AA=="}, '{"$table":{"$bytes":"AA=="}}', "json"),
}

# Surrogates stand for bytes that are no UTF-8.
texts = st.text() | st.binary().map(lambda data: data.decode("utf-8", "surrogateescape"))
scalars = (
    st.none() | st.booleans() | st.integers(header_types.LEAST_INT, header_types.MOST_INT) | st.floats() | texts
    | st.binary() | st.datetimes(timezones=st.just(UTC)) | st.decimals(allow_nan=False, allow_infinity=False)
)  # fmt: skip
names = texts | st.sampled_from(["$bytes", "$table", "$", "$no"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=12
)


def like(one: Any, other: Any) -> bool:
    """Return True for the same value of the same type: 1 is not True, and nan is nan."""
    if type(one) is not type(other):
        return False
    match one:
        case list():
            same = len(one) == len(other) and all(map(like, one, other))
        case dict():
            same = list(one) == list(other) and all(like(one[name], other[name]) for name in one)
        case float() | Decimal():
            same = repr(one) == repr(other)
        case _:
            same = one == other
    return bool(same)


@pytest.mark.parametrize(("value", "text", "tag"), EXAMPLES.values(), ids=EXAMPLES)
def test_a_value_has_this_text_and_type(value: object, text: str, tag: str) -> None:
    assert to_text(value) == (text, tag)
    assert like(from_text(text, tag), value)


@given(value=values)
def test_every_value_comes_back(value: object) -> None:
    text, tag = to_text(value)
    assert like(from_text(text, tag), value)
    assert tag != "json" or text.encode()
    assert tag in {"", *header_types.TAGS}
    assert (tag == "") is isinstance(value, str)


@given(table=st.dictionaries(texts, values, max_size=5))
def test_all_headers_of_a_message_come_back(table: dict[str, object]) -> None:
    headers, tags = to_texts(table)
    assert all(isinstance(text, str) for text in headers.values())
    assert like(from_texts(headers, tags), table)


@given(text=texts, tag=st.sampled_from(header_types.TAGS))
def test_any_text_is_a_value_or_a_clear_error(text: str, tag: str) -> None:
    with contextlib.suppress(HeaderTypeError):
        value = from_text(text, tag)
        assert like(from_text(*to_text(value)), value)


BROKEN = [
    ("1", "long"), ("01", "int"), ("1.0", "int"), ("1_0", "int"), (" 1", "int"), ("18446744073709551616", "int"),
    ("٣", "int"), ("-9223372036854775809", "int"), ("9" * 10_000, "int"),
    ("1_0.0", "float"), ("infinity", "float"), ("", "float"), ("True", "bool"), ("1", "bool"),
    ("AP8", "bytes"), ("A\nA==", "bytes"), ("é", "bytes"), ("yesterday", "time"), ("0001-01-01T00:00:00+14:00", "time"),
    ("NaN", "decimal"), ("1_0", "decimal"), ("x", "decimal"), ("null", "null"),
    ("1", "json"), ("[NaN]", "json"), ('{"a":1,"a":2}', "json"), ('{"$int":"1"}', "json"), ('{"$bytes":1}', "json"),
    ('{"$table":1}', "json"), ('{"$time":"x"}', "json"), ("[" * 100_000, "json"), ("[" * 70 + "]" * 70, "json"),
    ("[18446744073709551616]", "json"), ("[1" + "0" * 5000 + "]", "json"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "tag"), BROKEN, ids=lambda each: each[:20])
def test_what_is_no_value_of_its_type_is_a_clear_error(text: str, tag: str) -> None:
    with pytest.raises(HeaderTypeError) as caught:
        from_text(text, tag)
    assert caught.value.tag == tag
    assert len(str(caught.value)) < 200


def test_a_broken_header_is_named() -> None:
    with pytest.raises(HeaderTypeError, match="header retries: 'many' is no header of the type int"):
        from_texts({"retries": "many"}, {"retries": "int"})


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, Decimal("NaN"), object(), {1: "x"}, [[object()]], {"x": 1j}])
def test_what_has_no_text_is_a_clear_error(value: object) -> None:
    with pytest.raises(HeaderTypeError):
        to_text(value)


def test_tables_within_tables_have_an_end() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(HeaderTypeError):
        to_text(value)


def test_a_number_that_prints_itself_otherwise_is_its_number() -> None:
    class Long(int):
        def __repr__(self) -> str:
            return f"{int(self)}L"

    assert to_text(Long(7)) == ("7", "int")


def test_times_are_in_utc() -> None:
    east = datetime(2026, 1, 31, 5, tzinfo=timezone(timedelta(hours=2)))
    assert to_text(east) == to_text(datetime(2026, 1, 31, 3)) == ("2026-01-31T03:00:00Z", "time")  # noqa: DTZ001
