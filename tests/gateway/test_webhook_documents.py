"""What a webhook tells of a result: JSON as it was written, all else as it can be."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest

from infertool.gateway.webhooks import encoded
from tests.gateway.webhook_receiver import ended

JSON, MSGPACK = "application/json", "application/msgpack"


def told(body: bytes, kind: str = JSON) -> Any:
    """Return the data of the document for a result of this content type."""
    progress = ended(1, "https://a/b", body=body)
    assert progress.outcome
    outcome = msgspec.structs.replace(progress.outcome, content_type=kind)
    return json.loads(encoded(msgspec.structs.replace(progress, outcome=outcome)))["data"]


def test_a_result_that_is_nested_too_deep_for_json_is_told_in_base64() -> None:
    assert told(b"\x91" * 3000 + b"\xc0", MSGPACK)["content_type"] == MSGPACK


@pytest.mark.parametrize(("written", "kind"), [(b"\x91", MSGPACK), (b"[", JSON)])
def test_a_result_that_is_nested_deep_is_told(written: bytes, kind: str) -> None:
    """Deeper than JSON is written here, and not deeper than it is read."""
    depth = 600
    body = written * depth + b"0" + (b"]" * depth if written == b"[" else b"")
    data = told(body, kind)
    if written == b"[":
        assert json.dumps(data["prediction"]).encode() == body
    else:
        assert base64.b64decode(data["body_base64"]) == body


def test_a_number_in_messagepack_is_not_read_as_a_digit_of_json() -> None:
    assert told(b"1")["prediction"] == 1
    assert told(b"1", MSGPACK)["prediction"] == 49
