"""What each case gets: a broker, queues, and a note of what came out for the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from infertool.brokers.port import Broker
from tests.brokers.conformance import table
from tests.brokers.conformance.targets import TARGETS, Opened, Target
from tests.support.brokers import Links

_VERDICT = pytest.StashKey[str]()
Verdict = Callable[[str], None]


@pytest.fixture(params=[pytest.param(each, id=each.name, marks=each.marks) for each in TARGETS])
def target(request: pytest.FixtureRequest) -> Target:
    return request.param


@pytest.fixture
def opened(target: Target, request: pytest.FixtureRequest) -> Iterator[Opened]:
    with target.open(request) as opened:
        yield opened


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
    target = getattr(pyfuncitem, "callspec", None) and pyfuncitem.callspec.params.get("target")
    if mark is None or not target or not target.column:
        return result
    text, verdict = mark.args[0].format(**pyfuncitem.callspec.params), pyfuncitem.stash.get(_VERDICT, "yes")
    pyfuncitem.user_properties.append((table.PROPERTY, (text, target.column, verdict)))
    if not pyfuncitem.config.getoption(table.OPTION):
        documented = table.read().get(text, {}).get(target.column)
        assert documented == verdict, f"docs/brokers.md says {documented!r} of {text!r}; rewrite it with {table.OPTION}"
    return result
