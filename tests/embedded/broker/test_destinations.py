"""Topics, temporary destinations, browsers, selectors, statistics: with the embedded broker and with ActiveMQ."""

from __future__ import annotations

import json

import pytest

from tests.embedded.broker.conftest import Connect
from tests.embedded.broker.raw import Raw, frame, frame_of, send, settled, subscribe
from tests.embedded.broker.test_settling import bodies, everything, filled


def test_a_topic_gives_each_subscriber_its_copy(connect: Connect, queue: str) -> None:
    one, two = connect(), connect()
    one.done(subscribe(f"/topic/{queue}", "client"))
    two.done(subscribe(f"/topic/{queue}", "auto"))
    two.write(send(f"/topic/{queue}", "news"))
    for client, ack in ((one, {"ack": "*"}), (two, {})):
        command, headers, body = settled(client.read())
        assert (command, body) == ("MESSAGE", b"news")
        assert headers == ack | {
            "subscription": "s",
            "destination": f"/topic/{queue}",
            "message-id": "*",
            "timestamp": "*",
            "expires": "0",
            "priority": "4",
            "persistent": "true",
        }


def test_a_topic_keeps_nothing_for_later_subscribers(connect: Connect, queue: str) -> None:
    client = connect()
    client.done(send(f"/topic/{queue}", "early"), subscribe(f"/topic/{queue}"))
    client.write(send(f"/topic/{queue}", "late"))
    assert client.read().body == b"late"
    assert client.ask(frame("UNSUBSCRIBE", id="s", receipt="u")).command == "RECEIPT"
    client.write(send(f"/topic/{queue}", "too late"))
    assert client.quiet()


def test_wildcards(connect: Connect, queue: str) -> None:
    client = connect()
    client.done(
        subscribe(f"/topic/{queue}.>", "auto", id="rest"),
        subscribe(f"/topic/{queue}.*", "auto", id="one"),
        subscribe(f"/queue/{queue}.*", "auto", id="queues"),
    )
    client.write(send(f"/topic/{queue}.a"), send(f"/topic/{queue}"), send(f"/topic/{queue}.a.b"))
    client.write(send(f"/queue/{queue}.made-later"), send(f"/queue/{queue}"))
    got = {(message["subscription"], message["destination"]) for message in client.read_many(5)}
    assert got == {
        ("rest", f"/topic/{queue}.a"),
        ("one", f"/topic/{queue}.a"),
        ("rest", f"/topic/{queue}"),
        ("rest", f"/topic/{queue}.a.b"),
        ("queues", f"/queue/{queue}.made-later"),
    }
    assert client.quiet()


@pytest.mark.parametrize(("asked", "shown"), [("{}", "/queue/{}"), ("/foo/{}", "/queue//foo/{}"), ("/queue/ {} ",) * 2])
def test_names_without_a_known_prefix_are_queues(connect: Connect, queue: str, asked: str, shown: str) -> None:
    client = connect()
    client.write(subscribe(asked.format(queue)), send(asked.format(queue)))
    assert client.read()["destination"] == shown.format(queue).replace(" ", "")


@pytest.mark.parametrize("kind", ["queue", "topic"])
def test_request_and_reply_over_a_temporary_destination(connect: Connect, queue: str, kind: str) -> None:
    server, caller = connect(), connect()
    server.done(subscribe(f"/queue/{queue}", "auto"))
    caller.done(subscribe(f"/temp-{kind}/answers", "auto"))
    caller.write(send(f"/queue/{queue}", "question", reply_to=f"/temp-{kind}/answers", correlation_id="7"))
    question = server.read()
    assert question["correlation-id"] == "7"
    assert question["reply-to"].startswith(f"/remote-temp-{kind}/ID:")
    server.write(send(question["reply-to"].replace(":", "\\c"), "answer"))
    answer = caller.read()
    assert (answer.body, answer["destination"]) == (b"answer", f"/temp-{kind}/answers")


def test_a_temporary_queue_ends_with_its_connection(connect: Connect, queue: str) -> None:
    server, caller = connect(), connect()
    server.done(subscribe(f"/queue/{queue}", "auto"))
    caller.done(subscribe("/temp-queue/answers", "auto"))
    caller.write(send(f"/queue/{queue}", "question", reply_to="/temp-queue/answers"))
    reply_to = server.read()["reply-to"]
    caller.write(frame("DISCONNECT", receipt="bye"))
    assert caller.closed()
    error = server.ask(send(reply_to.replace(":", "\\c"), "answer", receipt="r"))
    assert (error.command, error["receipt-id"]) == ("ERROR", "r")
    assert error["message"] == reply_to.replace("/remote-temp-queue/", "temp-queue://")


def test_a_temporary_queue_belongs_to_its_connection(connect: Connect, queue: str) -> None:
    one, two = connect(), connect()
    one.done(subscribe("/temp-queue/same", "auto"))
    two.write(subscribe("/temp-queue/same", "auto"), send("/temp-queue/same", "to myself"))
    assert two.read().body == b"to myself"
    assert one.quiet()


def test_a_browser_sees_all_takes_nothing_and_ends(connect: Connect, queue: str) -> None:
    holder = filled(connect, queue, 4)
    holder.write(subscribe(f"/queue/{queue}", prefetch="2"))
    holder.read_many(2)
    browser = connect()
    browser.write(subscribe(f"/queue/{queue}", "auto", id="b", browser="true"))
    assert bodies(browser.read_many(4)) == ["m0", "m1", "m2", "m3"]
    end = {"browser": "end", "destination": f"/queue/{queue}", "message-id": "*", "subscription": "b"}
    assert settled(browser.read()) == ("MESSAGE", end, b"")
    assert browser.ask(frame("UNSUBSCRIBE", id="b", receipt="u")).command == "RECEIPT"
    assert len(everything(connect, queue)) == 4


def test_a_browser_of_a_topic_is_refused(connect: Connect, queue: str) -> None:
    assert connect().ask(subscribe(f"/topic/{queue}", id="b", browser="true")).command == "ERROR"


MESSAGES: list[dict[str, str]] = [
    {"n": "1", "s": "a"}, {"n": "2", "s": "b"}, {"n": "10", "s": "abc"},
    {"s": "x"}, {"n": "abc"}, {"n": "1.0", "f": "true"},
]  # fmt: skip


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("n = 1", "0"), ("n = '1'", "0"), ("n > 1", "12"), ("n <> 1", "1245"), ("n <> '1'", "1245"),
        ("n IS NULL", "3"), ("n is not null", "01245"), ("s LIKE 'a%'", "02"), ("s NOT LIKE 'a_c'", "013"),
        ("s IN ('a','b')", "01"), ("s NOT IN ('a')", "123"), ("n BETWEEN 1 AND 5", "01"), ("f = TRUE", "5"),
        ("n = 1 OR s = 'b' AND n = 3", "0"), ("(n = 1 OR s = 'b') AND n < 3", "01"),
        ("JMSPriority > 3 AND JMSDeliveryMode = 'PERSISTENT' AND n = 2", "1"), ("s = 'it''s'", ""),
    ],
)  # fmt: skip
def test_selectors(connect: Connect, queue: str, selector: str, found: str) -> None:
    client = connect()
    for number, headers in enumerate(MESSAGES):
        client.write(frame_of("SEND", {"destination": f"/queue/{queue}", "persistent": "true", **headers}, str(number)))
    client.done()
    client.write(subscribe(f"/queue/{queue}", id="b", browser="true", selector=selector))
    assert "".join(bodies(client.read_many(len(found) + 1))) == found


def test_a_selector_picks_from_the_middle_and_leaves_the_rest(connect: Connect, queue: str) -> None:
    client = connect()
    client.done(*(send(f"/queue/{queue}", f"m{n}", n=n % 2) for n in range(6)))
    client.write(subscribe(f"/queue/{queue}", "auto", selector="n = 1"))
    assert bodies(client.read_many(3)) == ["m1", "m3", "m5"]
    assert bodies(everything(connect, queue)) == ["m0", "m2", "m4"]


def test_selectors_see_the_delivery_count(connect: Connect, queue: str) -> None:
    for number in range(3):
        client = filled(connect, queue, 2) if number == 0 else connect()
        client.write(subscribe(f"/queue/{queue}", prefetch="1"))
        client.read()
        client.write(frame("DISCONNECT"))
        assert client.closed()
    client = connect()
    client.write(subscribe(f"/queue/{queue}", "auto", selector="JMSXDeliveryCount >= 4"))
    assert client.read().body == b"m0"
    assert client.quiet()


@pytest.mark.parametrize(
    "selector", ["n = = 1", "n = 1 AND", "n != 1", 's = "a"', "s > 'a'", "n =", "JMSPriority BETWEEN '1' AND '9'"]
)
def test_a_bad_selector_is_an_error(connect: Connect, queue: str, selector: str) -> None:
    client = connect()
    error = client.ask(subscribe(f"/queue/{queue}", selector=selector, receipt="r"))
    assert (error.command, error["receipt-id"]) == ("ERROR", "r")
    assert client.sync() == []


def figures(client: Raw, destination: str) -> dict[str, object]:
    client.write(send(destination, "", reply_to="/temp-queue/stats", correlation_id="q"))
    answer = client.read()
    command, headers, _ = settled(answer)
    assert command == "MESSAGE"
    assert headers == {
        "destination": "/temp-queue/stats",
        "subscription": "stats",
        "message-id": "*",
        "timestamp": "*",
        "expires": "0",
        "priority": "4",
        "type": "Advisory",
        "transformation": "jms-map-json",
        "correlation-id": "q",
    }
    found: dict[str, object] = {}
    for entry in json.loads(answer.body)["map"]["entry"]:
        name = entry.pop("string")
        key, value = name if isinstance(name, list) else (name, next(iter(entry.values())))
        found[key] = value
    return found


ASK = subscribe("/temp-queue/stats", "auto", id="stats", transformation="jms-map-json")
QUEUE_FIGURES = {
    "size", "inflightCount", "enqueueCount", "dequeueCount", "dispatchCount", "expiredCount", "consumerCount",
    "producerCount", "messagesCached", "averageMessageSize", "averageEnqueueTime", "minEnqueueTime",
    "maxEnqueueTime", "memoryUsage", "memoryLimit", "memoryPercentUsage", "brokerId", "brokerName",
    "destinationName",
}  # fmt: skip


def test_statistics_of_a_queue(connect: Connect, queue: str) -> None:
    consumer = filled(connect, queue, 5)
    consumer.write(subscribe(f"/queue/{queue}", prefetch="2"))
    first, _ = consumer.read_many(2)
    consumer.done(frame("ACK", id=first["ack"]))
    client = connect()
    client.write(ASK)
    found = figures(client, f"/queue/ActiveMQ.Statistics.Destination.{queue}")
    assert set(found) == QUEUE_FIGURES
    expected = {"size": 4, "inflightCount": 2, "enqueueCount": 5, "dequeueCount": 1, "consumerCount": 1}
    assert {key: found[key] for key in expected} == expected
    assert found["destinationName"] == f"queue://{queue}"


def test_statistics_of_an_unknown_queue_are_not_answered(connect: Connect, queue: str) -> None:
    client = connect()
    client.write(ASK, send(f"/queue/ActiveMQ.Statistics.Destination.{queue}", "", reply_to="/temp-queue/stats"))
    assert client.quiet()


def test_statistics_of_the_broker(connect: Connect, queue: str) -> None:
    filled(connect, queue, 3)
    client = connect()
    client.write(ASK)
    found = figures(client, "/queue/ActiveMQ.Statistics.Broker")
    assert QUEUE_FIGURES - {"destinationName"} <= set(found)
    size, enqueued = found["size"], found["enqueueCount"]
    assert isinstance(size, int)
    assert size >= 3
    assert isinstance(enqueued, int)
    assert enqueued >= size
