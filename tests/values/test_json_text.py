"""JSON that is decoded and forwarded: no number changes, and untouched text stays the same."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertool.text import json_text
from tests.support.present import present

# Each is valid JSON that a decoder and an encoder between them would change.
NUMBERS = [
    "12345678901234567890123456789", "-12345678901234567890", "18446744073709551616", "-9223372036854775809",
    "12345678901234567.89", "1.10", "1.0", "1E-7", "1e5", "-0.0", "-0", "1e400", "0.1000000000000000055511151231257827",
    "1" * 400, "1" * 5000,
]  # fmt: skip
INTEGERS = [n for n in NUMBERS if n.lstrip("-").isdigit() and len(n) < 4300]


@pytest.mark.parametrize("number", INTEGERS)
def test_whole_numbers_of_any_size_are_ints(number: str) -> None:
    text = f'{{"a":[{number}]}}'
    for given_text in (text, text.encode()):
        assert json_text.loads(given_text) == {"a": [int(number)]}
    assert type(json_text.loads(text)["a"][0]) is int


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" * 5000, "1" * 400 + ".5"])
def test_what_no_number_can_hold_is_told_apart_from_what_is_no_json(number: str) -> None:
    with pytest.raises(json_text.NumberError):
        json_text.loads(f"[{number}]")
    assert abs(json_text.loads_nearest(f"[{number}]")[0]) == float("inf")
    assert json_text.is_json(number.encode())


@pytest.mark.parametrize(
    "text",
    [b"", b" ", b"{", b"[1,]", b"01", b"NaN", b"-Infinity", b'"\xff"', b'"\\ud800"', b'"\x01"', b"\xef\xbb\xbf{}"],
)  # fmt: skip
def test_what_is_no_json(text: bytes) -> None:
    for read in (json_text.loads, json_text.loads_nearest, json_text.loads_written):
        with pytest.raises(json_text.JsonError):
            read(text)
    assert not json_text.is_json(text)


@given(st.binary(max_size=40), st.integers(0, 2**32))
def test_it_reads_what_orjson_reads(garbage: bytes, seed: int) -> None:
    rng = random.Random(seed)
    text = bytearray(rng.choice([garbage, b'{"a":[1.5,-2e3,"\\u00e9\xc3\xa9",null,true,{}]}', b'"\\ud83d\\ude00\\n"']))
    for _ in range(rng.randrange(3)):
        text[rng.randrange(len(text) + 1) : rng.randrange(len(text) + 1)] = rng.choice(b'{}[],:"\\09eE+-. u').to_bytes()
    try:
        expected = orjson.loads(bytes(text))
    except orjson.JSONDecodeError:
        with pytest.raises(json_text.JsonError):
            json_text.loads(bytes(text))
        assert not json_text.is_json(bytes(text))
    else:
        assert json_text.loads(bytes(text)) == expected
        assert json_text.is_json(bytes(text))


@pytest.mark.parametrize("depth", [500, 1000, 1023])
def test_deep_nesting(depth: int) -> None:
    text = b"[" * depth + b"\n1.10\n" + b"]" * depth
    assert json_text.is_json(text)
    assert json_text.loads(text)
    assert b"1.10" in json_text.one_line(text)
    assert b"\n" not in json_text.one_line(text)
    assert b"1.10" in json_text.pretty(text)


@pytest.mark.parametrize("number", NUMBERS)
def test_text_in_other_forms(number: str) -> None:
    text = f'{{"a" : [{number},\r\n {{"b":"x \\u2028\u2028\\n"}}],\n"a":{number}}}'.encode()
    line = json_text.one_line(text)
    assert line == f'{{"a":[{number},{{"b":"x \\u2028\u2028\\n"}}],"a":{number}}}'.encode()
    assert json_text.one_line(line) is line
    assert json_text.pretty(line).count(number.encode()) == 2
    assert json_text.pretty(line).count(b"\n") == 8
    assert msgspec.json.format(json_text.pretty(line), indent=-1) == line


@dataclass
class Result:
    number: int


def test_results_with_large_numbers() -> None:
    big = 10**40
    value = {"a": big, "b": [-big, (big, 2**64)], "c": Result(big), "d": 2**64 - 1, "e": True}
    text = json_text.dumps(value)
    assert json.loads(text) == {"a": big, "b": [-big, [big, 2**64]], "c": {"number": big}, "d": 2**64 - 1, "e": True}
    for bad in ({1: 2}, {"a": {1, 2}}, object(), 10**5000):
        with pytest.raises(TypeError):
            json_text.dumps({"big": big, "bad": bad})


@pytest.mark.parametrize("number", NUMBERS)
def test_a_float_knows_how_it_was_written(number: str) -> None:
    value = json_text.loads_written(f'{{"a":{number},"b":[0.5,{number}]}}'.encode())
    assert isinstance(value["a"], int | float)
    expected = number if number != "-0" else "0"
    assert json_text.dumps(value) == f'{{"a":{expected},"b":[0.5,{expected}]}}'.encode()


@given(
    st.decimals(allow_nan=False, allow_infinity=False),
    st.sampled_from("eE"),
    st.sampled_from(["", "für", "\ud83d\ude00"]),
)
def test_a_decimal_that_a_float_cannot_hold_keeps_its_text(number: Decimal, letter: str, beside: str) -> None:
    text = str(number).replace("E", letter)
    body = json.dumps([beside, "\0"], ensure_ascii=False).encode("utf-8", "surrogatepass")[:-1] + f",{text}]".encode()
    try:
        value = json_text.loads_exact(body)
    except json_text.NumberError:
        assert float(number) in {float("inf"), float("-inf")}
        return
    (written,) = json_text.raw_elements(json_text.dumps(value))[2:]
    assert Decimal(written.decode()) == number


@pytest.mark.parametrize(
    "number", ["0.1234567890123456789", "1234567890123456.5", "1.5e-400", "-12345678901234567.89E3"]
)
def test_such_a_decimal_is_kept_in_modified_utf_8(number: str) -> None:
    for body in (b'{"t":"\xed\xa0\xbd\xed\xb8\x80","n":%b}' % number.encode(), b'{"n":[%b]}' % number.encode()):
        assert json_text.dumps(json_text.loads_exact(body)).endswith(number.encode() + body[-2:].lstrip(b"0123456789"))


def test_what_is_nested_deep_is_read_all_the_same() -> None:
    value = json_text.loads_exact(b"[" * 1000 + b"1234567890123456.5" + b"]" * 1000)
    for _ in range(1000):
        [value] = value
    assert value == 1234567890123456.5


@pytest.mark.parametrize("number", NUMBERS)
def test_a_value_is_put_and_all_else_keeps_its_text(number: str) -> None:
    text = f' {{"id" : {number},"list":[ {number} , {{"a":"}}]\\"" }}],"id":{number}, "e":{{ }}}} '.encode()
    head = text.rstrip()[:-1]
    assert json_text.put(text, ["x"], b"1") == head + b',"x":1} '
    assert json_text.put(text, ["list", 1, "a"], b"[]") == text.replace(b'"}]\\""', b"[]")
    assert json_text.put(text, ["list", "1", "a"], b"[]") == text.replace(b'"}]\\""', b"[]")
    assert json_text.put(text, ["e", "f", "g"], b"2") == text.replace(b"{ }", b'{"f":{"g":2} }')
    # All readers see it, those that take the first of the same name, too.
    assert json_text.put(text, ["id"], b"7").count(number.encode()) == 1
    assert orjson.loads(json_text.put(text, ["id"], b"7").replace(number.encode(), b"0"))["id"] == 7


@pytest.mark.parametrize(
    ("steps", "kind"),
    [(["a", "b"], "no object and no list"), (["l", 3], "a list"), (["l", "x"], "a list"), (["o", 0], "an object")],
)
def test_a_place_that_is_none(steps: list[Any], kind: str) -> None:
    with pytest.raises(json_text.NoPlaceError) as raised:
        json_text.put(b'{"a":1,"l":[1],"o":{}}', steps, b"1")
    assert raised.value.kind == kind


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(st.dictionaries(st.text(), JSON, max_size=5), st.text(), JSON, st.sampled_from([None, 2]), st.booleans())
def test_putting_and_finding_are_what_python_does(
    document: dict[str, Any], key: str, value: Any, indent: int | None, ascii_only: bool
) -> None:
    def dumped(each: Any) -> bytes:
        return json.dumps(each, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "replace")

    text = dumped(document)
    if not json_text.is_json(text) or not json_text.is_json(dumped([key, value])):
        return  # surrogates
    put = json_text.put(text, [key], dumped(value))
    assert json.loads(put) == {**document, key: value}
    assert json_text.find(put, [key]) == dumped(value)
    for name, each in document.items():
        if name != key:
            assert json.loads(present(json_text.find(put, [name]))) == each
    assert json_text.find(text, ["no such key", 0]) is None


@pytest.mark.parametrize(
    ("java", "usual"),
    [
        (b"plain", b"plain"),
        ("grüße 漢字".encode(), "grüße 漢字".encode()),
        (b"\xed\xa0\xbd\xed\xb0\x8d\xc0\x80\xed\xaf\xbf\xed\xbf\xbf", "\U0001f40d\0\U0010ffff".encode()),
        (b"\xed\xa0\xbd alone \xed\xb0\x8d", b"\xed\xa0\xbd alone \xed\xb0\x8d"),
        ("퟿ \U0001f40d".encode(), "퟿ \U0001f40d".encode()),
        (b"\xff\xed", b"\xff\xed"),
    ],
)
def test_javas_own_utf8(java: bytes, usual: bytes) -> None:
    assert json_text.utf8(java) == usual
    assert json_text.utf8_line(java) == usual


@pytest.mark.parametrize("text", [b'{"a":\r\n1.10}', '{"a":\n"ü"}'.encode(), b'{"a":\n"\xed\xa0\xbd\xed\xb0\x8d"}'])
def test_javas_own_utf8_on_one_line(text: bytes) -> None:
    assert json_text.utf8_line(text) == json_text.one_line(json_text.utf8(text))


def test_json_in_javas_own_utf8_is_read() -> None:
    assert json_text.loads(b'{"a":"\xed\xa0\xbd\xed\xb0\x8d"}') == {"a": "\U0001f40d"}
    with pytest.raises(json_text.JsonError):
        json_text.loads(b'{"a":"\xed\xa0\xbd"}')
