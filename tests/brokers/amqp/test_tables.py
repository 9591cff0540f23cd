"""Field tables: every type comes back as it was, and bytes that are no table are an error, never a crash."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import data as pikas

from infertool.brokers.amqp import tables
from infertool.brokers.amqp.tables import TableError

VALUES = {
    "text": "grüße \U0001f600", "empty": "", "bytes": b"\x00\xff", "true": True, "false": False, "small": -1,
    "large": 2**40, "least": -(2**63), "float": 0.1, "nothing": None, "time": datetime(2026, 1, 31, 3, tzinfo=UTC),
    "decimal": Decimal("-12.50"), "whole": Decimal(7), "list": [1, "a", [None, 0.5]],
    "table": {"a": {"b": b"x"}, "": True},
}  # fmt: skip

scalars = st.one_of(
    st.text(), st.binary(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.none(),
    st.integers(0, 253_402_300_799).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
)  # fmt: skip
names = st.text(max_size=60)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4))


def test_every_type_comes_back() -> None:
    assert tables.decode(tables.encode(VALUES), 0) == (VALUES, len(tables.encode(VALUES)))
    assert str(tables.decode(tables.encode(VALUES), 0)[0]["decimal"]) == "-12.50"


@given(st.dictionaries(names, values, max_size=6))
def test_any_table_comes_back(table: dict[str, object]) -> None:
    encoded = tables.encode(table)
    assert tables.decode(b"xx" + encoded, 2) == (table, len(encoded) + 2)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_an_error(data: bytes) -> None:
    try:
        tables.decode(data, 0)
    except TableError:
        return


def test_pika_reads_what_we_write() -> None:
    # All but floats, of which it loses the fraction.
    table = {name: value for name, value in VALUES.items() if name not in {"float", "list"}}
    assert pikas.decode_table(tables.encode(table), 0)[0] == table


@pytest.mark.parametrize(
    ("tag", "form", "value"),
    [("b", "b", -3), ("B", "B", 200), ("s", "h", -300), ("u", "H", 60000), ("I", "i", -70000), ("i", "I", 2**31),
     ("l", "q", -(2**40)), ("f", "f", 0.5), ("d", "d", 0.1)],
)  # fmt: skip
def test_numbers_of_other_clients(tag: str, form: str, value: object) -> None:
    body = b"\x01n" + tag.encode() + struct.pack(">" + form, value)
    assert tables.decode(struct.pack(">I", len(body)) + body, 0)[0] == {"n": value}


def test_a_text_that_is_not_utf8_is_bytes() -> None:
    body = b"\x01n" + b"S" + struct.pack(">I", 2) + b"\xff\xfe"
    assert tables.decode(struct.pack(">I", len(body)) + body, 0)[0] == {"n": b"\xff\xfe"}


def test_a_time_in_milliseconds_stays_a_number() -> None:
    body = b"\x01t" + b"T" + struct.pack(">Q", 2**60)
    assert tables.decode(struct.pack(">I", len(body)) + body, 0)[0] == {"t": 2**60}


@pytest.mark.parametrize(
    "body",
    [
        b"\x01nQ",
        b"\x05n",
        b"\x01n",
        b"\x01nS\xff\xff\xff\xff",
        b"\x01nI\x00",
        b"\x01nA\x00\x00\x00\x09\x00",
        b"\x01nF\x00\x00\xff\xff",
    ],
)
def test_what_is_no_table(body: bytes) -> None:
    with pytest.raises(TableError):
        tables.decode(struct.pack(">I", len(body)) + body, 0)


def test_tables_within_tables_have_an_end() -> None:
    inner = b""
    for _ in range(2000):
        inner = b"\x00F" + struct.pack(">I", len(inner)) + inner
    with pytest.raises(TableError, match="within"):
        tables.decode(struct.pack(">I", len(inner)) + inner, 0)


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, object(), Decimal("1e300"), Decimal("NaN"), {"a" * 256: 1}])
def test_what_amqp_cannot_hold(value: object) -> None:
    with pytest.raises(TableError):
        tables.encode({"n": value})


@pytest.mark.parametrize(
    "value",
    [
        datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2026, 1, 31, 3, 0, 0, 1, tzinfo=UTC),
        Decimal(2**31), Decimal("1E-300"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("inside", [lambda value: value, lambda value: [{"a": value}]], ids=["alone", "in a table"])
def test_what_amqp_cannot_hold_is_refused_and_not_changed(value: object, inside: Callable[[object], object]) -> None:
    with pytest.raises(TableError):
        tables.encode({"n": inside(value)})
    assert not tables.holds(inside(value))
