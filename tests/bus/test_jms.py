"""What Java producers send, on the real ActiveMQ: any kind of JMS message, any text, any property."""

from __future__ import annotations

import json

import pytest

from tests.bus.conftest import Bus
from tests.support.jms import Jms, produce

pytestmark = pytest.mark.activemq

PLAIN = 20


def plain(queue: str) -> list[Jms]:
    return [Jms(queue, json.dumps({"event_id": f"plain-{n}"})) for n in range(PLAIN)]


def shown(bus: Bus, queue: str) -> list[str]:
    """Return the bodies in `queue`, as a subscriber sees them that asks for maps and objects to be shown."""
    return [body.decode() for _, body in bus.drain(queue, transformation="jms-map-json")]


def test_a_map_an_object_a_stream_and_an_empty_text_stay_as_they_are(real_bus: Bus) -> None:
    queue = real_bus.queue
    hidden = [
        Jms(queue, {"amount": 17, "name": "x"}, {"event_id": "map"}, "map"),
        Jms(queue, "serialized", {"event_id": "object"}, "object"),
        Jms(queue, [1, "x"], {"event_id": "stream"}, "stream"),
        Jms(queue, None, {"event_id": "null"}),
        Jms(queue, "", {"event_id": "empty"}),
        Jms(queue, None, {"event_id": "plain"}, "plain"),
    ]
    produce(real_bus.broker, [*hidden, *plain(queue)])
    for turn in (1, 2):
        consumer = real_bus.consume("--exit-when-idle", "1s")
        summary = consumer.finish()
        assert summary["succeeded"] == (PLAIN if turn == 1 else 0)
        assert (summary["dead_lettered"], summary["failed"], summary["handed_back"]) == (0, 6, 6)
        assert "It stays in its queue" in consumer.log.read_text()
    assert real_bus.viewer.wait(PLAIN + len(hidden), 60)
    assert real_bus.viewer.alerts.keys() == {each.properties["event_id"] for each in hidden}
    assert all(real_bus.viewer.payloads[name]["error_type"] == "HiddenBody" for name in real_bus.viewer.alerts)
    assert real_bus.dead_ids() == []
    bodies = shown(real_bus, queue)
    assert len(bodies) == len(hidden)
    assert {"string": "amount", "int": 17} in json.loads(bodies[0])["map"]["entry"]
    assert bodies[1] == '{"string":"serialized"}'


def test_they_fill_the_window_and_that_is_told(real_bus: Bus) -> None:
    queue = real_bus.queue
    produce(real_bus.broker, [*[Jms(queue, {"n": n}, kind="map") for n in range(5)], *plain(queue)])
    consumer = real_bus.consume("--window", "5", "--exit-when-idle", "2s")
    summary = consumer.finish()
    assert (summary["succeeded"], summary["handed_back"]) == (0, 5)
    assert "5 messages that cannot be read fill the window: no others come" in consumer.log.read_text()


def test_a_property_content_length_blocks_nobody(real_bus: Bus) -> None:
    queue = real_bus.queue
    odd = [
        Jms(queue, json.dumps({"event_id": f"odd-{n}"}), {"content-length": length})
        for n, length in enumerate([5, 0, 17, 300, 5_000_000, 500_000_000, "x", -3])
    ]
    produce(real_bus.broker, [*plain(queue)[:10], *odd, *plain(queue)[10:], odd[4]])
    consumer = real_bus.consume("--max-messages", str(PLAIN + len(odd) + 1))
    summary = consumer.finish()
    assert (summary["succeeded"], summary["reconnects"]) == (PLAIN + len(odd) + 1, 0)
    assert consumer.log.read_text().count("content-length that does not fit its body") == len(odd) + 1
    assert real_bus.viewer.wait(PLAIN + len(odd), 60)
    assert real_bus.left() == 0


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_text_in_javas_own_utf8(real_bus: Bus, executor: str) -> None:
    """A JMS TextMessage comes with each half of a pair of surrogates as three bytes, and a NUL as two."""
    events = [
        {"event_id": f"e-{n}", "text": text} for n, text in enumerate(["\U0001f40d", "grüße", "a\U00010000b漢字"])
    ]
    produce(real_bus.broker, [Jms(real_bus.queue, json.dumps(event, ensure_ascii=False)) for event in events])
    summary = real_bus.consume("--max-messages", "3", "--executor", executor, model="fixtures/models/noop.py:predict")
    assert summary.finish()["succeeded"] == 3
    assert real_bus.viewer.wait(3, 60)
    assert [real_bus.viewer.payloads[event["event_id"]]["original_payload"] for event in events] == events
