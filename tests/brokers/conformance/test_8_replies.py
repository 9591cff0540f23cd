"""Replies: a queue of a caller's own, its address, and what is left when the caller is gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import SimpleQueue

import pytest

from infertool.brokers.port import Broker, Replies
from infertool.errors import RefusedError, UnroutableError, UsageError
from infertool.message import Message, Outgoing, Properties
from infertool.net.connection_state import ConnectionState
from tests.brokers.conformance.conftest import Verdict
from tests.brokers.conformance.targets import Opened
from tests.brokers.conftest import Connect
from tests.support.brokers import TIMEOUT_S, Links, send_all, take

REFUSED = "no: refused"


class Caller:
    """A connection with a queue for replies; None in `replies` where the broker has no such queues."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.came: SimpleQueue[Message] = SimpleQueue()
        self.replies: Replies | None = None
        if broker.capabilities.reply_addresses:
            self.replies = broker.open_replies(self._take)
        else:
            with pytest.raises(RefusedError):
                broker.open_replies(self._take)

    def _take(self, messages: list[Message]) -> None:
        for message in messages:
            self.came.put(message)

    def ask(self, queue: str, *ids: str) -> None:
        assert self.replies
        reply_to = self.replies.address
        assert reply_to
        requests = [Properties(correlation_id=each, reply_to=reply_to, persistent=False) for each in ids]
        send_all(self.broker, [Outgoing(queue, b"?", properties=properties) for properties in requests])

    def next(self) -> Message:
        return self.came.get(timeout=TIMEOUT_S)


def asked(broker: Broker, queue: str, count: int = 1) -> list[tuple[str, str]]:
    """Take requests; return where the reply to each goes, and its correlation id."""
    subscription = broker.subscribe(queue, window=200)
    requests: list[tuple[str, str]] = []
    while len(requests) < count:
        messages = take(subscription, min(100, count - len(requests)))
        subscription.ack(messages)
        for message in messages:
            reply_to, correlation_id = message.properties.reply_to, message.properties.correlation_id
            assert reply_to
            assert correlation_id
            requests.append((broker.conventions.reply_queue(reply_to), correlation_id))
    return requests


def reply(to: str, correlation_id: str, body: bytes = b"!") -> Outgoing:
    return Outgoing(to, body, properties=Properties(correlation_id=correlation_id, persistent=False))


@pytest.mark.case("a caller has a queue of its own, and replies come to it")
def test_a_request_and_its_reply(opened: Opened, connect: Connect, queue: str, verdict: Verdict) -> None:
    caller, server = Caller(connect(opened.url)), connect(opened.url)
    if caller.replies is None:
        verdict(REFUSED)
        return
    caller.ask(queue, "c 1")
    [(to, correlation_id)] = asked(server, queue)
    send_all(server, [reply(to, correlation_id, '{"grüße": 1}'.encode())])
    came = caller.next()
    assert (came.correlation_id, came.body) == ("c 1", '{"grüße": 1}'.encode())
    assert server.reply_exists(to, TIMEOUT_S) in {True, None}


@pytest.mark.case("several callers get their own replies, all of them")
def test_many_requests(opened: Opened, connect: Connect, queue: str, verdict: Verdict) -> None:
    callers, server = [Caller(connect(opened.url)) for _ in range(3)], connect(opened.url)
    if callers[0].replies is None:
        verdict(REFUSED)
        return
    for number, caller in enumerate(callers):
        caller.ask(queue, *(f"{number}-{n}" for n in range(200)))
    requests = asked(server, queue, 600)
    send_all(server, [reply(to, correlation_id, correlation_id.encode()) for to, correlation_id in requests])
    for number, caller in enumerate(callers):
        bodies = [caller.next().body.decode() for _ in range(200)]
        assert sorted(bodies) == sorted(f"{number}-{n}" for n in range(200))
        assert caller.came.empty()


@pytest.mark.case("a reply to a caller that is gone is refused, and it can be asked for before")
def test_a_caller_that_is_gone(opened: Opened, connect: Connect, queue: str, verdict: Verdict) -> None:
    caller, server = Caller(connect(opened.url)), connect(opened.url)
    if caller.replies is None:
        verdict(REFUSED)
        return
    caller.ask(queue, "c1", "c2")
    [(to, _), _] = asked(server, queue, 2)
    before = server.reply_exists(to, TIMEOUT_S)
    caller.broker.close(TIMEOUT_S)
    assert caller.replies.address is None
    answers: SimpleQueue[Exception | None] = SimpleQueue()
    if before is None:
        # Nothing tells: the reply is dropped.
        verdict("no: not told")
        assert server.reply_exists(to, TIMEOUT_S) is None
        send_all(server, [reply(to, "c1")])
        return
    assert before is True
    deadline = time.monotonic() + TIMEOUT_S
    while server.reply_exists(to, TIMEOUT_S) is not False:
        assert time.monotonic() < deadline
    server.send(reply(to, "c1"), answers.put)
    assert isinstance(answers.get(timeout=TIMEOUT_S), UnroutableError)
    # The connection lives.
    send_all(server, [Outgoing(queue, b"")])


@pytest.mark.case("after a reconnect replies come to another address")
def test_after_a_reconnect(
    opened: Opened, connect: Connect, links: Links, new_queue: Callable[[], str], verdict: Verdict
) -> None:
    queue = new_queue()
    server = connect(opened.url)
    with opened.line() as line:
        caller = Caller(connect(line.url, links))
        if caller.replies is None:
            verdict(REFUSED)
            return
        first = caller.replies.address
        line.cut()
        line.resume()
        links.wait_for(ConnectionState.CONNECTED, 2)
        if caller.broker.capabilities.log:
            assert caller.replies.address == first
            verdict("no: the address stays")
        else:
            assert caller.replies.address not in {None, first}
        caller.ask(queue, "c1")
        [(to, correlation_id)] = asked(server, queue)
        send_all(server, [reply(to, correlation_id)])
        assert caller.next().correlation_id == "c1"
        caller.broker.close(TIMEOUT_S)


@pytest.mark.case("replies that were closed deliver nothing more, and the connection goes on")
def test_closed_replies(opened: Opened, connect: Connect, new_queue: Callable[[], str], verdict: Verdict) -> None:
    queue, another = new_queue(), new_queue()
    caller, server = Caller(connect(opened.url)), connect(opened.url)
    if caller.replies is None:
        verdict(REFUSED)
        return
    caller.ask(queue, "c1")
    [(to, _)] = asked(server, queue)
    caller.replies.close()
    assert caller.replies.address is None
    answers: SimpleQueue[Exception | None] = SimpleQueue()
    server.send(reply(to, "c1"), answers.put)
    answers.get(timeout=TIMEOUT_S)
    again = Caller(caller.broker)
    again.ask(another, "c2")
    [(to, correlation_id)] = asked(server, another)
    send_all(server, [reply(to, correlation_id)])
    assert again.next().correlation_id == "c2"
    assert caller.came.empty()


@pytest.mark.case("replies may be sent from the callback of a reply")
def test_a_callback_that_sends(opened: Opened, connect: Connect, queue: str, verdict: Verdict) -> None:
    broker, done = connect(opened.url), SimpleQueue[Message]()
    if not broker.capabilities.reply_addresses:
        verdict(REFUSED)
        return
    sent: Callable[[Exception | None], None] = lambda _error: None  # noqa: E731

    def again(messages: list[Message]) -> None:
        for message in messages:
            left = int(message.body)
            if left:
                request = Properties(reply_to=replies.address, persistent=False)
                broker.send(Outgoing(queue, b"%d" % (left - 1), properties=request), sent)
            else:
                done.put(message)
            raise ZeroDivisionError  # the adapter logs it, and goes on

    replies = broker.open_replies(again)
    server = connect(opened.url)
    subscription = server.subscribe(queue, window=10)
    broker.send(Outgoing(queue, b"5", properties=Properties(reply_to=replies.address, persistent=False)), sent)
    for _ in range(6):
        [request] = take(subscription, 1)
        subscription.ack([request])
        to = server.conventions.reply_queue(request.properties.reply_to or "")
        send_all(server, [reply(to, "c", request.body)])
    assert done.get(timeout=TIMEOUT_S).body == b"0"


@pytest.mark.case("a reply-to that is no queue is refused in words")
@pytest.mark.parametrize(
    "text", ["/topic/t", "", " ", "/", "/remote-temp-topic/ID:1", "a,b", "/queue/", "/queue/a,/queue/b", "a b\n", "x/y"]
)
def test_what_is_no_reply_queue(broker: Broker, text: str) -> None:
    with pytest.raises(UsageError):
        broker.conventions.reply_queue(text)


def test_links_hear_of_nothing(opened: Opened, connect: Connect, queue: str) -> None:
    """Asking for callers that are gone leaves the connection as it is."""
    links = Links()
    broker = connect(opened.url, links)
    gone = "nobodys/0" if broker.capabilities.log else "/remote-temp-queue/ID:nobody-1-1:1:1"
    for _ in range(20):
        assert broker.reply_exists(gone, TIMEOUT_S) in {False, None, True}
    send_all(broker, [Outgoing(queue, b"")])
    assert links.of(ConnectionState.LOST) == []
