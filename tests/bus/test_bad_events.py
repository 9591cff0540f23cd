"""Broken events, tried one by one: each ends as a result, or as a dead letter that is the original, with an alert.

All of them go through one consumer for each broker, as they would in production.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bus.conftest import Bus
from tests.support.hub import HubProcess
from tests.support.odd_events import ODD_EVENTS, OddEvent
from tests.support.rawstomp import RawStomp
from tests.support.scripted import Line, Scripted
from tests.support.viewer import Viewer

LONG = 180

# What a broker writes anew on every delivery.
DELIVERY = {
    "message-id", "subscription", "ack", "destination", "timestamp", "expires", "persistent", "redelivered",
}  # fmt: skip
OURS = {
    "dlq_stage", "dlq_error_type", "dlq_error", "dlq_attempts", "dlq_failed_at", "dlq_first_failed_at", "dlq_consumer",
    "dlq_model", "dlq_headers_dropped", "dlq_format", "dlq_event_id", "dlq_request_id", "dlq_traceback",
    "original_destination", "original_message_id", "original_persistent",
    "replay_count",
}  # fmt: skip
# More than can be carried into a dead letter: past 900 headers, or past 10 KiB once escaped.
TOO_MUCH = {"950-headers-poison", "all-headers-poison", "long-line-that-grows-poison"}

Delivery = tuple[dict[str, str], bytes]


@dataclass
class Ended:
    """What became of the events: as the broker delivers them untouched, as dead letters, and as seen by a viewer."""

    untouched: dict[str, Delivery]
    dead: dict[str, list[Delivery]]
    viewer: Viewer
    summary: dict[str, Any]
    left: int

    def seen(self, event: OddEvent) -> dict[str, Any]:
        """Return the one document that tells the event's outcome."""
        counter = self.viewer.alerts if event.poison else self.viewer.results
        found = [self.viewer.payloads[i] for i in counter if self._is(event, i)]
        assert len(found) == 1
        assert counter[found[0]["event_id"]] == 1
        document: dict[str, Any] = found[0]
        return document

    def _is(self, event: OddEvent, event_id: str) -> bool:
        if event.event_id is not None:
            return event_id == event.event_id
        if event.poison:
            return event_id == self.dead[event.name][0][0]["original_message_id"]
        return (self.viewer.payloads[event_id]["original_payload"] or {}).get("case") == event.name


@pytest.fixture(scope="module", params=[pytest.param("activemq", marks=pytest.mark.activemq), "embedded_broker"])
def ended(
    request: pytest.FixtureRequest, session_hub: HubProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ended]:
    viewer = Viewer(session_hub.url)
    bus = Bus(request.getfixturevalue(request.param), session_hub, tmp_path_factory.mktemp("bad"), viewer)
    raw = bus.raw()
    send(bus, raw)
    raw.close()
    summary = bus.consume("--max-messages", str(len(ODD_EVENTS)), model="fixtures/models/noop.py:predict").finish()
    assert viewer.wait(len(ODD_EVENTS), LONG)
    dead: dict[str, list[Delivery]] = {}
    for headers, body in bus.drain(bus.dlq):
        dead.setdefault(headers["case"], []).append((headers, body))
    untouched = {headers["case"]: (headers, body) for headers, body in bus.drain(f"{bus.queue}.untouched")}
    yield Ended(untouched, dead, viewer, summary, bus.left())
    viewer.close()


def send(bus: Bus, raw: RawStomp) -> None:
    """Send every event twice: to the consumer's queue, and to one where it stays untouched."""
    for event in ODD_EVENTS.values():
        for queue in (bus.queue, f"{bus.queue}.untouched"):
            if event.rest:
                other = bus.raw()
                other.write(event.frame(queue))
                other.wait_closed()
            else:
                raw.write(event.frame(queue))
    raw.barrier(bus.queue)


def users(headers: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in headers.items() if key not in DELIVERY}


def test_none_of_them_costs_the_connection_or_is_left(ended: Ended) -> None:
    poison = sum(event.poison for event in ODD_EVENTS.values())
    assert ended.left == 0
    assert ended.summary["reconnects"] == ended.summary["redelivered"] == ended.summary["handed_back"] == 0
    assert ended.summary["dead_lettered"] == poison
    assert ended.summary["succeeded"] == len(ODD_EVENTS) - poison
    assert set(ended.dead) == {name for name, event in ODD_EVENTS.items() if event.poison}


@pytest.mark.parametrize("name", ODD_EVENTS)
def test_an_odd_event(ended: Ended, name: str) -> None:
    event = ODD_EVENTS[name]
    document = ended.seen(event)
    if event.poison:
        assert (document["status"], document["stage"]) == ("FAILED", "decode")
        assert_is_the_original(ended, event)
    else:
        assert document["status"] == "SUCCESS"


def assert_is_the_original(ended: Ended, event: OddEvent) -> None:
    untouched, body = ended.untouched[event.name]
    [(headers, dead_body)] = ended.dead[event.name]
    assert dead_body == body == event.body
    original = users(untouched)
    kept = {key: headers[key] for key in original.keys() & headers.keys() if key not in OURS}
    dropped = int(headers.get("dlq_headers_dropped", "0"))
    assert (dropped > 0) == (event.name in TOO_MUCH)
    assert kept == {key: value for key, value in original.items() if key in kept}
    assert len(original.keys() - OURS) - len(kept) == dropped
    assert original.items() >= {"priority": headers["priority"]}.items()
    assert ("content-length" in headers) == event.as_bytes or event.name == "nul-text"
    assert headers["persistent"] == "true"
    assert headers["dlq_stage"] == "decode"
    assert headers.get("original_persistent") == (None if event.persistent else "false")


def test_messages_without_an_id_are_events_of_their_own(session_hub: HubProcess, tmp_path: Path) -> None:
    """On a second connection such a broker counts its deliveries from one again."""

    def deliver(line: Line) -> None:
        line.connected()
        subscription = line.receipt("SUBSCRIBE")["id"]
        line.send(f"MESSAGE\nsubscription:{subscription}\nack:1\ndestination:/queue/q\n\n{{}}\0".encode())
        assert line.expect("ACK") == {"id": "1"}

    def deliver_and_end(line: Line) -> None:
        deliver(line)
        line.receipt("DISCONNECT")

    viewer = Viewer(session_hub.url)
    with Scripted(deliver, deliver_and_end) as broker:
        bus = Bus(broker, session_hub, tmp_path, viewer)
        summary = bus.consume("--max-messages", "2").finish()
    assert (summary["received"], summary["succeeded"], summary["reconnects"]) == (2, 2, 1)
    assert viewer.wait(2, LONG)
    viewer.close()
