"""Bodies and headers: templates, sizes, broken events, priorities. The same seed makes the same bytes."""

from __future__ import annotations

import json
import random
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from infertool.consumer.attempt import Decoding, Event
from infertool.errors import UsageError
from infertool.load import headers, payloads
from infertool.load.headers import Envelope, EnvelopeOptions
from infertool.load.payloads import Order, PayloadOptions, Payloads
from infertool.message import BodyKind, Message

DOCUMENT = {"features": [1, 2], "customer": {"tier": "gold"}, "note": 'a "quoted" one'}
TEXT = json.dumps(DOCUMENT, separators=(",", ":")).encode()


def bodies(count: int = 200, seed: str = "1", **options: Any) -> list[bytes]:
    made = Payloads(PayloadOptions(**options), seed)
    return [made.make(number)[0] for number in range(count)]


def documents(*assignments: str, count: int = 200) -> list[Any]:
    return [json.loads(body) for body in bodies(count, documents=(TEXT,), assignments=assignments)]


def test_the_built_in_event() -> None:
    made = [json.loads(body) for body in bodies()]
    assert [event["request_id"] for event in made] == [f"req-{n:06d}" for n in range(200)]
    assert all(len(event["features"]) == 8 for event in made)
    assert 330 < len(bodies()[0]) < 400


def test_fields_are_filled_and_the_rest_stays() -> None:
    made = documents(
        "features[0]=normal(5,0.1)", "features[1]=int(1,6)", "customer.tier=choice(gold,silver)", "new.field=uuid()",
        "n=sequence()", "c=counter(100,5)", "t=text(12)", "f=float(0,1)", "literal=[1,2]", "plain=some text",
        "at=now()",
    )  # fmt: skip
    assert abs(statistics.mean(event["features"][0] for event in made) - 5) < 0.05
    assert {event["features"][1] for event in made} == {1, 2, 3, 4, 5, 6}
    assert {event["customer"]["tier"] for event in made} == {"gold", "silver"}
    assert len({event["new"]["field"] for event in made}) == 200
    assert [event["n"] for event in made] == list(range(200))
    assert [event["c"] for event in made] == list(range(100, 1100, 5))
    assert {len(event["t"]) for event in made} == {12}
    assert all(0 <= event["f"] <= 1 for event in made)
    assert made[0]["literal"] == [1, 2]
    assert made[0]["plain"] == "some text"
    assert made[0]["note"] == DOCUMENT["note"]


def test_one_seed_makes_the_same_bytes() -> None:
    options = {
        "assignments": ("features=normal(0,1)", "x=uuid()", "y=text(9)"),
        "size": "normal(500,50)",
        "poison_rate": 0.1,
    }
    assert bodies(500, "a", **options) == bodies(500, "a", **options)
    assert bodies(500, "a", **options) != bodies(500, "b", **options)


def test_several_documents_in_turn_or_at_random() -> None:
    several = tuple(b'{"n":%d}' % n for n in range(3))
    assert [json.loads(body)["n"] for body in bodies(6, documents=several)] == [0, 1, 2, 0, 1, 2]
    at_random = [json.loads(body)["n"] for body in bodies(300, documents=several, order=Order.RANDOM)]
    assert min(Counter(at_random).values()) > 60


def test_padding_is_exact_and_never_cuts() -> None:
    assert {len(body) for body in bodies(documents=(b"{}",), size="400")} == {400}
    assert {len(body) for body in bodies(documents=(TEXT,), size="10")} == {
        len(json.dumps(DOCUMENT, separators=(",", ":")))
    }
    sizes = [len(body) for body in bodies(2000, documents=(b"{}",), size="normal(400,100)")]
    assert abs(statistics.mean(sizes) - 400) < 15
    assert abs(statistics.stdev(sizes) - 100) < 10
    assert json.loads(bodies(1, documents=(TEXT,), size="400")[0])["customer"] == DOCUMENT["customer"]


def test_broken_events_are_broken_for_the_consumer_and_no_others() -> None:
    made = Payloads(PayloadOptions(poison_rate=0.3), "1")
    kinds: Counter[str] = Counter()
    for number in range(2000):
        body, broken = made.make(number)
        failure = Decoding(10_000).decode(Event(Message("1", "q", {}, body, BodyKind.TEXT, False, 0, ""), "1"))
        assert broken == (failure is not None)
        kinds[failure.error_type if failure else "good"] += 1
    assert abs(2000 - kinds["good"] - 600) < 100
    assert set(kinds) == {"good", "NotJson", "NotUtf8", "NotAnObject", "EmptyBody"}


def test_priorities_have_their_shares() -> None:
    draw = headers.priorities("high:9=0.1,low:4=0.9", random.Random(5))
    drawn = Counter(draw() for _ in range(5000))
    assert set(drawn) == {"9", "4"}
    assert abs(drawn["9"] - 500) < 100


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"assignments": ("x=nromal(0,1)",)}, "no function nromal; did you mean 'normal'"),
        ({"assignments": ("x=normal(0)",)}, r"write normal\(0,1\)"),
        ({"assignments": ("x=int(5,1)",)}, "cannot be called so"),
        ({"assignments": ("no assignment",)}, "is no assignment"),
        ({"assignments": ("features[9]=1",), "documents": (TEXT,)}, "there is no element 9"),
        ({"assignments": ("note.x=1",), "documents": (TEXT,)}, "no object and no list"),
        ({"size": "large"}, "is no size"),
        ({"size": "-5"}, "out of range"),
        ({"size": "5", "documents": (b"[1]",)}, "needs JSON objects"),
        ({"poison_rate": 2.0}, "is no share"),
        ({"poison_rate": float("nan")}, "is no share"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Payloads(PayloadOptions(**options), "1")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"priority": "high:12=1"}, "is no priority"),
        ({"priority": "9=0.5,4=0.4"}, "make 0.9"),
        ({"priority": "9"}, "is no share"),
        ({"headers": ("event_id=x",)}, "set by loadgen itself"),
        ({"headers": ("colour",)}, "is no header"),
        ({"headers": ("reply-to=/queue/",)}, "closes the connection"),
        ({"headers": ("timestamp=2026-11-26",)}, "closes the connection"),
    ],
)
def test_invalid_header_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Envelope(EnvelopeOptions("/queue/x", **options), "1")


@pytest.mark.parametrize(
    ("text", "words"),
    [(b"", "is empty"), (b" \n", "is empty"), (b"{broken", "is not JSON"), (b'{"a":1}\n{b\n', "line 2")],
)
def test_a_payload_file_that_cannot_be_used(tmp_path: Path, text: bytes, words: str) -> None:
    file = tmp_path / "payload.json"
    file.write_bytes(text)
    with pytest.raises(UsageError, match=words):
        payloads.read(str(file))


def test_payload_files(tmp_path: Path) -> None:
    file = tmp_path / "payload.json"
    file.write_text(json.dumps(DOCUMENT, indent=2))
    assert payloads.read(str(file)) == (TEXT,)
    file.write_text('{"a":1}\n\n{"a":2}\n')
    assert payloads.read(str(file)) == (b'{"a":1}', b'{"a":2}')
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        payloads.read(str(tmp_path / "none"))


def test_a_feature_of_the_built_in_event_can_be_filled_alone() -> None:
    made = [json.loads(body)["features"] for body in bodies(200, assignments=("features[0]=int(7,7)",))]
    assert {features[0] for features in made} == {7}
    assert {len(features) for features in made} == {8}
    assert len({features[1] for features in made}) > 100
