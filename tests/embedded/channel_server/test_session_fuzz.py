"""No message makes a session fail in any other way than a malformed frame does."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from infertool.embedded.channel_server import server, wire
from infertool.embedded.channel_server.channels import Hub
from infertool.embedded.channel_server.session import Session
from infertool.phoenix.frames import FrameError, Vsn
from infertool.text.json_text import JsonError
from tests.support.examples import examples

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5)
ANY_JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)
)
REFS = st.sampled_from(["1", "2", None]) | ANY_JSON
TOPICS = st.sampled_from(["service:inference", "public:results", "phoenix", "nope:x"]) | ANY_JSON
EVENTS = (
    st.sampled_from(["phx_join", "phx_leave", "new_result", "echo", "boom", "stop", "flow", "heartbeat"]) | ANY_JSON
)
MESSAGES = st.lists(st.tuples(REFS, REFS, TOPICS, EVENTS, ANY_JSON), max_size=6)


@examples(60)
@given(MESSAGES, st.sampled_from(["1.0.0", "2.0.0"]), st.lists(st.booleans(), min_size=1, max_size=3))
def test_any_messages_are_taken(messages: list[Any], vsn: Vsn, batches: list[bool]) -> None:
    hub = Hub(server.definitions())
    sent: list[bytes] = []
    session = Session(hub, vsn, sent.append, authorized=True)
    for message, ends_batch in zip(messages, itertools.cycle(batches), strict=False):
        with contextlib.suppress(FrameError):  # as for a malformed frame, the socket is closed
            session.receive(wire.Received(*message))
        if ends_batch:
            session.end_batch()
    session.end_batch()
    session.leave_all()
    assert hub.describe() == {}


@examples(150)
@given(st.binary(max_size=60) | ANY_JSON.map(orjson.dumps), st.sampled_from(["1.0.0", "2.0.0"]))
def test_any_bytes_are_a_message_or_malformed(data: bytes, vsn: Vsn) -> None:
    for decode in (wire.decode, wire.decode_binary):
        try:
            message = decode(data, vsn)
        except (FrameError, JsonError):
            continue
        assert len(message) == 5
