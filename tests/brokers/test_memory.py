"""The URL of the broker in process: names, options, and what is wrong with them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from infertool import brokers
from infertool.brokers.memory import server
from infertool.brokers.memory.adapter import CAPABILITIES
from infertool.brokers.memory.server import Server
from infertool.brokers.port import Browsing, Capabilities
from infertool.errors import SettingsError, UsageError
from infertool.message import Outgoing
from infertool.net.connection_state import ConnectionState
from tests.brokers.conftest import Connect
from tests.support.brokers import TIMEOUT_S, Links, send_all, settings, take

_numbers = itertools.count(1)


@pytest.fixture
def name() -> Iterator[str]:
    name = f"url-{next(_numbers)}"
    yield name
    server.address_of(name, {}).server.remove()


def test_brokers_of_one_name_share_their_queues(connect: Connect, name: str) -> None:
    send_all(connect(f"memory://{name}"), [Outgoing("q", b"1")])
    assert [message.body for message in take(connect(f"memory://{name}").subscribe("q", window=1), 1)] == [b"1"]


def test_one_broker_is_made_however_many_ask_for_it_at_once(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    made = server.parse_options

    def slowly(options: Mapping[str, str]) -> tuple[Capabilities, int]:
        time.sleep(0.05)
        return made(options)

    monkeypatch.setattr(server, "parse_options", slowly)
    with ThreadPoolExecutor(8) as pool:
        addresses = list(pool.map(lambda _: server.address_of(name, {}), range(8)))
    assert len(set(map(id, addresses))) == 1


def test_options_switch_off_what_they_name(connect: Connect, name: str) -> None:
    broker = connect(f"memory://{name}?atomic_move=no&browse=partial&max_unacked=5&selector_reach=2&page=1")
    can = broker.capabilities
    assert (can.atomic_move, can.browse, can.max_unacked, can.selector_reach) == (False, Browsing.PARTIAL, 5, 2)
    assert (can.exclusive, can.depth) == (CAPABILITIES.exclusive, CAPABILITIES.depth) == (True, True)
    send_all(broker, [Outgoing("q", b"%d" % n) for n in range(3)])
    browse = broker.browse("q", limit=10, timeout_s=TIMEOUT_S)
    assert (len(browse.messages), browse.complete, browse.depth) == (1, False, 3)


def test_other_options_for_a_broker_that_is_there_are_refused(connect: Connect, name: str) -> None:
    connect(f"memory://{name}?depth=no")
    connect(f"memory://{name}?depth=no")
    connect(f"memory://{name}")
    with pytest.raises(SettingsError, match="was made with other options"):
        connect(f"memory://{name}?depth=yes")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("depth", "'depth' in the broker URL is no option"),
        ("depth=true&depth=false", "an option of the broker URL stands twice"),
        ("depht=no", "depht='no' is no option"),
        ("depth=never", "it is yes or no"),
        ("browse=all", "it is one of none, partial, full"),
        ("max_moves=0", "a whole number from 1"),
    ],
)
def test_what_is_no_option_is_told(query: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        brokers.open(settings(f"memory://never-made?{query}"))


def test_a_removed_broker_is_another_one_the_next_time(connect: Connect) -> None:
    with Server("removed") as made:
        made.send(Outgoing("q", b"1"))
    with Server("removed") as again:
        assert again.held("q") == []


@pytest.mark.parametrize(("typed", "queue"), [("a.b", "a.b"), ("/queue/a.b", "a.b"), (" a ", "a")])
def test_queues_are_their_names(typed: str, queue: str) -> None:
    conventions = brokers.conventions("memory://any")
    assert (conventions.queue(typed), conventions.source(typed)) == (queue, queue)


@pytest.mark.parametrize("typed", ["a,b", "a.>", "a.*", "", "a b"])
def test_lists_and_patterns_are_not_offered(typed: str) -> None:
    with pytest.raises(UsageError, match="no queue of a memory broker"):
        brokers.conventions("memory://any").source(typed)


def test_an_ack_that_fits_no_delivery_ends_the_connection(connect: Connect, links: Links, name: str) -> None:
    """A consumer that acks twice is found out."""
    broker = connect(f"memory://{name}", links)
    send_all(broker, [Outgoing("q", b"1")])
    subscription = broker.subscribe("q", window=1)
    [message] = take(subscription, 1)
    subscription.ack([message])
    subscription.ack([message])
    assert "refused to take a message as acknowledged" in links.wait_for(ConnectionState.LOST).reason
