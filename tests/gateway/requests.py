"""Requests for tests."""

from __future__ import annotations

import itertools
import time

from msgspec.structs import replace

from infertool.gateway.ids import Ids
from infertool.gateway.request import InferRequest

IDS = Ids("t")
_numbers = itertools.count()


def a_request(**changes: object) -> InferRequest:
    """Return a request with a new id, a minute before its deadline."""
    now_ms = time.time_ns() // 1_000_000
    request = InferRequest(
        id=IDS.new(),
        client="c",
        class_name="standard",
        model="default",
        queue="q",
        body=b'{"n": %d}' % next(_numbers),
        content_type="application/json",
        accepted_ms=now_ms,
        deadline_ms=now_ms + 60_000,
    )
    return replace(request, **changes)
