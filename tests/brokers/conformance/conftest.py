"""What each case gets: a broker, queues, and a note of what came out for the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from infertool.brokers.port import Broker
from infertool.net.connection_state import ConnectionEvent, ConnectionState
from tests.brokers.conformance import table
from tests.brokers.conformance.kafka import KafkaServer
from tests.brokers.conformance.targets import TARGETS, Opened, Target
from tests.support.brokers import Links

_VERDICT = pytest.StashKey[str]()
Verdict = Callable[[str], None]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out cases in which a target does not differ from another one."""
    needless = [item for item in items if isinstance(item, pytest.Function) and _is_needless(item)]
    if needless:
        config.hook.pytest_deselected(items=needless)
        items[:] = [item for item in items if item not in needless]


def _is_needless(item: pytest.Function) -> bool:
    target = item.callspec.params.get("target") if hasattr(item, "callspec") else None
    module = item.path.stem
    return isinstance(target, Target) and bool(target.only) and module not in target.only


@pytest.fixture(params=[pytest.param(each, id=each.name, marks=each.marks) for each in TARGETS])
def target(request: pytest.FixtureRequest) -> Target:
    target: Target = request.param
    return target


@pytest.fixture
def opened(target: Target, request: pytest.FixtureRequest) -> Iterator[Opened]:
    with target.open(request) as opened:
        yield opened


@pytest.fixture
def connect(connect: Callable[..., Broker], opened: Opened, target: Target) -> Callable[..., Broker]:
    """Connect with the settings of the target; its lines hear of lost connections."""

    def open_and_connect(url: str, links: Callable[[ConnectionEvent], None] | None = None, **changes: Any) -> Broker:
        def tell(event: ConnectionEvent) -> None:
            if isinstance(opened, KafkaServer) and event.state is ConnectionState.LOST:
                opened.lost(url)
            if links:
                links(event)

        if not isinstance(opened, KafkaServer):
            return connect(url, tell, **{**target.settings, **changes})
        own = {"reply_topic": opened.reply_topic}
        return opened.shared(connect(opened.scheme(url), tell, **{**target.settings, **own, **changes}))

    return open_and_connect


@pytest.fixture
def broker(opened: Opened, connect: Callable[..., Broker]) -> Broker:
    """A connection to the broker."""
    return connect(opened.url)


@pytest.fixture
def new_queue(broker: Broker, opened: Opened) -> Callable[[], str]:
    """Return queues that nobody used before, as the broker spells them."""
    from tests.support import brokers

    def new() -> str:
        queue = broker.conventions.queue(brokers.new_queue())
        opened.prepare(queue)
        return queue

    return new


@pytest.fixture
def queue(new_queue: Callable[[], str]) -> str:
    return new_queue()


@pytest.fixture
def other_links() -> Links:
    return Links()


@pytest.fixture
def verdict(request: pytest.FixtureRequest) -> Verdict:
    """Note what the broker does in this case, in place of "yes"."""

    def note(text: str) -> None:
        request.node.stash[_VERDICT] = text

    return note


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object:
    """Compare what came out of a case with docs/brokers.md, unless that is to be written anew."""
    result = yield
    mark = pyfuncitem.get_closest_marker("case")
    target = pyfuncitem.callspec.params.get("target") if hasattr(pyfuncitem, "callspec") else None
    if mark is None or not isinstance(target, Target) or not target.column:
        return result
    text, verdict = mark.args[0].format(**pyfuncitem.callspec.params), pyfuncitem.stash.get(_VERDICT, "yes")
    pyfuncitem.user_properties.append((table.PROPERTY, (text, target.column, verdict)))
    if not pyfuncitem.config.getoption(table.OPTION):
        documented = table.read().get(text, {}).get(target.column)
        assert documented == verdict, f"docs/brokers.md says {documented!r} of {text!r}; rewrite it with {table.OPTION}"
    return result
