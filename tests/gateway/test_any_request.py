"""Whatever a client, a key set or a settings file says: a value that can be used, or the error that is promised."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from infertool.errors import SettingsError
from infertool.gateway import classes, headers, signing_keys, v2
from infertool.gateway.problem import Problem
from infertool.settings.tree import GatewaySettings

_TEXTS = st.text(max_size=5) | st.sampled_from([
    "RSA", "EC", "OKP", "P-256", "Ed25519", "sig", "verify", "RS256", "AQAB", "FP32", "INT64", "BYTES", "BOOL", "1h",
    "9" * 400,
])  # fmt: skip
_NAMES = _TEXTS | st.sampled_from([
    "keys", "kty", "use", "key_ops", "alg", "kid", "crv", "n", "e", "x", "y", "inputs", "outputs", "name", "datatype",
    "shape", "data", "parameters", "binary_data_size", "id", "weight", "budget", "priority",
])  # fmt: skip
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=6),
    max_leaves=20,
)
_KEYS = st.lists(
    st.fixed_dictionaries({"kty": st.sampled_from(["RSA", "EC", "OKP", 1])}, optional=dict.fromkeys(
        ("use", "key_ops", "alg", "kid", "crv", "n", "e", "x", "y"), _JSON,
    )), max_size=3,
)  # fmt: skip


@given(keys=_KEYS | _JSON)
@example([{"kty": "EC", "crv": []}])
@example([{"kty": "RSA", "key_ops": 7}])
def test_any_key_set_has_keys_or_none(keys: Any) -> None:
    with contextlib.suppress(ValueError):
        assert signing_keys.parse(json.dumps({"keys": keys}).encode())


_INPUT = st.fixed_dictionaries(
    {
        "name": _TEXTS,
        "datatype": st.sampled_from(["FP32", "INT64", "BYTES", "BOOL", "odd"]),
        "shape": st.lists(st.integers(-1, 3) | st.just(2**62), max_size=3),
    },
    optional={"data": _JSON, "parameters": st.dictionaries(_NAMES, _JSON, max_size=2)},
)
_DOCUMENTS = _JSON | st.fixed_dictionaries({"inputs": st.lists(_INPUT, max_size=3)}, optional={"outputs": _JSON})
_SIZES = st.none() | st.text(max_size=3) | st.integers(0, 300).map(str) | st.sampled_from(["0" * 20 + "9" * 5000, "٣"])


@given(body=_DOCUMENTS.map(msgspec.json.encode) | st.binary(max_size=9), raw=st.binary(max_size=20), size=_SIZES)
@example(b"{}", b"", "0" * 20 + "9" * 5000)
@example(b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[[1],null]}]}', b"", None)
def test_any_body_is_a_request_of_the_v2_protocol_or_refused(body: bytes, raw: bytes, size: str | None) -> None:
    with contextlib.suppress(v2.V2Error):
        request = v2.read(body + raw, size, v2.Model("m"))
        assert 0 < len(request.payloads) <= v2.MOST_EVENTS


_PIECES = st.text("aq=;, .\"'/*0129\t", max_size=6) | st.sampled_from([
    "application/json", "text/event-stream", "*/*", "q=0.5", "q=nan", "q=-inf", "wait=5", 'wait="5"', "respond-async",
    "charset=utf-8",
    "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "9" * 400, "application/vnd.a+json",
])  # fmt: skip
_VALUES = st.lists(_PIECES, max_size=5).map("".join)


@given(value=_VALUES)
def test_any_header_is_a_value_or_a_problem(value: str) -> None:
    names = ("accept", "prefer", "content-type", "request-timeout", "idempotency-key", "infertool-class", "traceparent")
    found = headers.read([(name.encode(), value.encode("latin-1", "replace")) for name in names])
    with contextlib.suppress(Problem):
        assert found.text("infertool-class").isascii()
    with contextlib.suppress(Problem):
        assert headers.content_type(value) in {headers.JSON, headers.MSGPACK}
    with contextlib.suppress(Problem):
        seconds = found.seconds("request-timeout")
        assert seconds is not None
        assert headers.LEAST_S <= seconds < 1e9
    with contextlib.suppress(Problem):
        assert headers.idempotency_key(found)
    asked = headers.preference(found["prefer"], 5.0, 60.0)
    assert 0 <= asked.wait_s <= 60
    assert asked.applied.isascii()
    assert headers.prefers(found["prefer"], "return") in {True, False}
    assert headers.accepts(found["accept"], headers.JSON) in {True, False}
    assert headers.wants_events(found["accept"]) in {True, False}
    assert len(headers.traceparent(found)) in {0, 55}


@given(tables=st.dictionaries(_TEXTS, st.dictionaries(_NAMES, _JSON, max_size=3) | _JSON, max_size=3))
@example({"bulk": {"budget": 10**400}})
@example({"bulk": {"weight": 10**400}})
def test_any_classes_of_the_settings_can_be_used_or_are_refused(tables: dict[str, Any]) -> None:
    try:
        found = classes.parse(GatewaySettings(classes=tables))
    except SettingsError:
        return
    assert all(math.isfinite(each.weight) and each.budget_s > 0 for each in found.values())
