"""A dead letter that the broker does not take costs the others nothing, and is named."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable

import pytest

from infertool.deadletters.record import MOST_DEATHS
from tests.bus.conftest import Bus
from tests.support.frameproxy import Answer, FrameProxy, Hook, header, hiding_the_brokers
from tests.support.jms import Jms, produce
from tests.support.running import CREDENTIALS, Running, infertool

pytestmark = pytest.mark.long

LONG = 180

# As JMS string properties: ActiveMQ closes the connection over most of these in a SEND, and acts upon the others.
PROPERTIES = {
    "timestamp": "2026-11-26T17\\c00\\c00Z", "priority": "high", "expires": "never", "reply-to": "/queue/",
    "AMQ_SCHEDULED_DELAY": "3600000", "AMQ_SCHEDULED_REPEAT": "2", "AMQ_SCHEDULED_PERIOD": "soon", "receipt": "r",
    "AMQ_SCHEDULED_CRON": "0 * * * *", "transaction": "tx", "JMSXGroupSeq": "first", "JMSPriority": "high",
    "transformation": "jms-map-json", "persistent": "maybe", "amq-msg-type": "map", "redelivered": "perhaps",
}  # fmt: skip
ORDINARY = 40


def wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def consume(bus: Bus, proxy: FrameProxy, *options: str, **env: str) -> Running:
    return bus.consume("--broker", proxy.url, "--publish", "none", *options, **env)


def fail_everything(bus: Bus, headers: list[dict[str, str]]) -> None:
    raw = bus.raw()
    raw.send(bus.queue, ((each, b"{broken") for each in headers))
    raw.close()


def letters(bus: Bus) -> list[dict[str, str]]:
    return [headers for headers, _ in bus.drain(bus.dlq)]


def test_headers_that_look_like_the_brokers_are_kept_under_another_name(bus: Bus) -> None:
    odd = [{"event_id": f"odd-{name}", f"jms.{name}": value} for name, value in PROPERTIES.items()]
    fail_everything(bus, [{"event_id": f"e-{n}"} for n in range(ORDINARY)] + odd)
    with FrameProxy(bus.broker.stomp_port, to_client=hiding_the_brokers) as proxy:
        summary = consume(bus, proxy, "--max-messages", str(ORDINARY + len(odd))).finish()
    assert (summary["dead_lettered"], summary["reconnects"]) == (ORDINARY + len(odd), 0)
    found = {headers["event_id"]: headers for headers in letters(bus)}
    assert len(found) == ORDINARY + len(odd)
    for name, value in PROPERTIES.items():
        assert found[f"odd-{name}"][f"infertool_kept_{name}"] == value.replace("\\c", ":"), name
        assert found[f"odd-{name}"]["original_destination"] == bus.queue


JMS = {name: value.replace("\\c", ":") for name, value in PROPERTIES.items() if not name.startswith(("JMS", "AMQ"))}


@pytest.mark.activemq
def test_what_a_java_producer_sets_comes_through_a_death_a_replay_and_a_restore(real_bus: Bus) -> None:
    """Each property that looks like a header of the broker's, beside ordinary failures; ActiveMQ itself judges."""
    queue = real_bus.queue
    odd = [Jms(queue, "{broken", {"event_id": f"odd-{name}", name: value}) for name, value in JMS.items()]
    # Delivered already, and still on the message: to send them again would send it again and again.
    odd += [Jms(queue, "{broken", {"event_id": "odd-AMQ_SCHEDULED_REPEAT", "AMQ_SCHEDULED_REPEAT": 2})]
    produce(real_bus.broker, [*odd, *(Jms(queue, "{broken", {"event_id": f"e-{n}"}) for n in range(ORDINARY))])
    count = len(odd) + ORDINARY
    expected = {"tx" if name == "transaction" else value for name, value in JMS.items()} | {"2"}
    run = ("--broker", real_bus.broker.url, "--yes", "-o", "json")

    def die() -> None:
        summary = real_bus.consume("--publish", "none", "--max-messages", str(count)).finish()
        assert (summary["dead_lettered"], summary["reconnects"]) == (count, 0)

    def replayed(*options: str) -> None:
        done = infertool("replay-dlq", real_bus.dlq, *run, *options, **CREDENTIALS)
        assert json.loads(done.stdout)["replayed"] == count, done.stderr

    die()
    replayed()
    die()
    file = str(real_bus.folder / "dead.jsonl")
    done = infertool("drain-dlq", real_bus.dlq, "--to", file, *run, **CREDENTIALS)
    assert json.loads(done.stdout)["removed"] == count, done.stderr
    replayed("--from", file, "--parking", f"{queue}.parked")
    die()
    found = {headers["event_id"]: headers for headers in letters(real_bus)}
    assert len(found) == count
    kept = {name: headers for name, headers in found.items() if name.startswith("odd-")}
    assert {headers[f"infertool_kept_{name.removeprefix('odd-')}"] for name, headers in kept.items()} == expected
    assert {headers["replay_count"] for headers in found.values()} == {"2"}
    assert {headers["original_destination"] for headers in found.values()} == {queue}


def test_names_of_ours_that_a_producer_uses_are_its_own(bus: Bus) -> None:
    theirs = {"replay_count": "7", "dlq_policy": "x", "dlq_stage": "mine", "original_destination": "/queue/elsewhere"}
    fail_everything(bus, [{"event_id": "e", **theirs}])
    run = ("--broker", bus.broker.url, "-o", "json")
    for turn in (1, 2):
        assert bus.consume("--publish", "none", "--max-messages", "1").finish()["dead_lettered"] == 1
        peeked = json.loads(infertool("peek-dlq", bus.dlq, "--id", "e", *run, **CREDENTIALS).stdout)
        assert (peeked["stage"], peeked["replay_count"], peeked["origin"]) == ("decode", turn - 1, bus.queue)
        done = infertool("replay-dlq", bus.dlq, "--yes", *run, **CREDENTIALS)
        assert json.loads(done.stdout)["replayed"] == 1, done.stderr
    [(headers, _)] = bus.drain(bus.queue)
    assert headers.items() >= theirs.items()


def is_guilty(frame: bytes) -> bool:
    return frame.lstrip(b"\n").startswith(b"SEND") and header(frame, b"guilty") == b"yes"


def closes(frame: bytes) -> bytes | None:
    return None if is_guilty(frame) else frame


def refuses(frame: bytes) -> bytes | Answer:
    if not is_guilty(frame):
        return frame
    return Answer(b"ERROR\nreceipt-id:%b\nmessage:not this one\n\n" % header(frame, b"receipt"))


@pytest.mark.parametrize("treat", [closes, refuses])
@pytest.mark.parametrize("guilty", [{17}, {0, 40}], ids=["one", "two"])
def test_the_guilty_is_found_and_the_others_are_dead_lettered(bus: Bus, treat: Hook, guilty: set[int]) -> None:
    count = ORDINARY + 1
    fail_everything(bus, [{"event_id": f"e-{n}", "guilty": "yes" if n in guilty else "no"} for n in range(count)])
    with FrameProxy(bus.broker.stomp_port, to_server=treat) as proxy:
        consumer = consume(bus, proxy, INFERTOOL_BROKER__RECONNECT_MAX_S="0.2")

        def are_named() -> bool:
            told = [line for line in consumer.log.read_text().splitlines() if "cannot be dead-lettered to" in line]
            return any(
                all(f"e-{n}" in line.replace(";", ",").replace(",", " ").split() for n in guilty) for line in told
            )

        wait(are_named, "the guilty are not named")
        found: Counter[str] = Counter()

        def others_are_there() -> bool:
            found.update(headers["event_id"] for headers in letters(bus))
            return len(found) >= count - len(guilty)

        wait(others_are_there, "the others are not dead-lettered")
        consumer.terminate()
        summary = consumer.finish()
    assert found == Counter(f"e-{n}" for n in range(count) if n not in guilty)
    assert (summary["dead_lettered"], summary["handed_back"]) == (count - len(guilty), len(guilty))
    assert bus.left() == len(guilty)


def test_two_consumers_that_feed_each_other_their_dead_letters_stop(bus: Bus) -> None:
    """Each start is right by itself; what failed here and fails there again is not sent back to where it came from."""
    fail_everything(bus, [{"event_id": "a"}, {"event_id": "b"}])
    first = bus.consume("--publish", "none")
    second = bus.consume("--publish", "none", "--queue", bus.dlq, "--dlq", bus.queue)
    wait(lambda: f"came back from {bus.dlq}" in second.log.read_text(), "the loop is not noticed")
    for consumer in (first, second):
        consumer.terminate()
    summaries = [first.finish(), second.finish()]
    assert [each["dead_lettered"] for each in summaries] == [2, 0]
    assert summaries[1]["handed_back"] == 2
    found = letters(bus)
    assert sorted(headers["event_id"] for headers in found) == ["a", "b"]
    assert {headers["original_destination"] for headers in found} == {bus.queue}
    assert bus.left() == 0


def test_a_ring_of_consumers_that_is_fed_from_outside_stops(bus: Bus) -> None:
    """No letter comes from the queue it is sent to, so only the number of its deaths tells that it goes round."""
    ring = [f"{bus.queue}.ring{n}" for n in range(3)]
    fail_everything(bus, [{"event_id": "a"}, {"event_id": "b"}])
    places = [(bus.queue, ring[0]), (ring[0], ring[1]), (ring[1], ring[2]), (ring[2], ring[0])]
    consumers = [bus.consume("--publish", "none", "--queue", queue, "--dlq", dead) for queue, dead in places]
    told = f"{MOST_DEATHS} times in a row"
    wait(lambda: any(told in each.log.read_text() for each in consumers[1:]), "the loop is not noticed")
    for consumer in consumers:
        consumer.terminate()
    summaries = [consumer.finish() for consumer in consumers]
    assert sum(each["dead_lettered"] for each in summaries) <= 2 * MOST_DEATHS
    found = [headers for queue in ring for headers, _ in bus.drain(queue)]
    assert sorted(headers["event_id"] for headers in found) == ["a", "b"]
    assert {headers["original_destination"] for headers in found} == {bus.queue}
    assert max(int(headers["dlq_deaths"]) for headers in found) == MOST_DEATHS
