"""The sample events are events, and the broken-input set is broken as its index says."""

from __future__ import annotations

import json

import orjson
import pytest

from infertool.models.loader import load
from tests.conftest import FIXTURES

EVENTS = sorted((FIXTURES / "events").glob("*.json"))
BROKEN = json.loads((FIXTURES / "broken" / "index.json").read_text())


@pytest.mark.parametrize("file", EVENTS, ids=lambda file: file.stem)
def test_a_sample_event_is_an_object_that_a_seeded_model_can_work_on(file):
    event = orjson.loads(file.read_bytes())
    model = load("sim:?min_ms=0&max_ms=0&failure_rate=0&seed=1")
    assert model.predict(event) == model.predict(event)


def test_the_reference_event_has_the_size_that_was_measured_with():
    assert len((FIXTURES / "events" / "reference.json").read_bytes()) == 364


def test_the_index_lists_every_broken_file_once():
    files = [file.name for file in (FIXTURES / "broken").glob("*.bin")]
    assert sorted(files) == sorted(BROKEN)


@pytest.mark.parametrize("file", BROKEN)
def test_poison_is_what_strict_json_refuses_or_no_object(file):
    body = (FIXTURES / "broken" / file).read_bytes()
    try:
        is_event = isinstance(orjson.loads(body), dict)
    except orjson.JSONDecodeError:
        is_event = False
    assert is_event is not BROKEN[file]["poison"]
