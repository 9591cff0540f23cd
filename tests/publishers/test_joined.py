"""Several publishers as one, whatever the order of their confirmations and rejections."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from infertool.publishers.joined import JoinedPublishers
from infertool.publishers.port import Confirmation, OnSettled, Publication, Rejection
from infertool.telemetry.signals import Unconfirmed


class Fake:
    """Takes publications; the test confirms and rejects them."""

    def __init__(self, name: str, batch: int = 1) -> None:
        self.name = name
        self.batch = batch
        self.got: list[Publication[str]] = []
        self.crashes: list[int] = []
        self.report: OnSettled[str]
        self.calls: list[str] = []
        self.drains = True

    def start(self) -> None:
        self.calls.append("start")

    def report_to(self, on_settled: OnSettled[str]) -> None:
        self.report = on_settled

    def publish(self, publications: Sequence[Publication[str]], *, crashes: int = 0) -> None:
        self.got += publications
        self.crashes.append(crashes)

    def pending(self) -> Unconfirmed:
        return Unconfirmed(len(self.got), float(len(self.name)))

    def stop(self) -> None:
        self.calls.append("stop")

    def widen(self, window: int) -> None:
        self.calls.append(f"widen {window}")

    def drain(self, timeout_s: float) -> bool:
        self.calls.append("drain")
        return self.drains

    def close(self, timeout_s: float) -> None:
        self.calls.append("close")

    def confirm(self, *publications: Publication[str]) -> None:
        self.report([Confirmation(each, self.name) for each in publications], ())

    def reject(self, publication: Publication[str]) -> None:
        self.report((), [Rejection(publication, "no")])


class Joined:
    def __init__(self) -> None:
        self.one, self.two = Fake("one"), Fake("longer", batch=5)
        # The event is what stands before the colon.
        self.joined = JoinedPublishers(
            [self.one, self.two], key=lambda context: context.partition(":")[0], first_only=frozenset({"dropped"})
        )
        self.confirmed: list[str] = []
        self.rejected: list[str] = []
        self.joined.report_to(self._take)

    def _take(self, confirmations: Sequence[Confirmation[str]], rejections: Sequence[Rejection[str]]) -> None:
        self.confirmed += [each.publication.context for each in confirmations]
        self.rejected += [each.publication.context for each in rejections]


def publication(context: str, event: str = "new_result") -> Publication[str]:
    return Publication(event, context, b"{}", context, b"-")


@pytest.fixture
def both() -> Joined:
    return Joined()


@pytest.mark.parametrize("first", [0, 1])
def test_a_publication_is_confirmed_once_when_all_have_confirmed(both: Joined, first: int) -> None:
    a, b = publication("a:1"), publication("b:1")
    both.joined.publish([a, b])
    assert both.one.got == both.two.got == [a, b]
    order = [both.one, both.two] if first == 0 else [both.two, both.one]
    order[0].confirm(a, b)
    assert both.confirmed == []
    order[1].confirm(b)
    order[1].confirm(b)
    assert both.confirmed == ["b:1"]
    order[1].confirm(a)
    assert both.confirmed == ["b:1", "a:1"]
    assert not both.joined._states


def test_only_who_rejected_gets_it_again(both: Joined) -> None:
    a = publication("a:1")
    both.joined.publish([a])
    both.two.reject(a)
    both.one.confirm(a)
    assert (both.confirmed, both.rejected) == ([], ["a:1"])
    again = a.without_payload()
    both.joined.publish([again], crashes=2)
    assert (both.one.got, both.two.got) == ([a], [a, again])
    assert both.two.crashes == [0, 2]
    both.two.confirm(again)
    assert both.confirmed == ["a:1"]


def test_an_alert_takes_the_place_of_a_rejected_result(both: Joined) -> None:
    """The confirmation of the result's reply comes late: it is not that of the alert's."""
    result, alert = publication("a:result"), publication("a:alert", "inference_failed")
    both.joined.publish([result])
    both.two.reject(result)
    both.joined.publish([alert])
    both.one.confirm(result)
    both.two.confirm(alert)
    both.two.reject(result)
    assert (both.confirmed, both.rejected) == ([], ["a:result"])
    both.one.confirm(alert)
    assert both.confirmed == ["a:alert"]
    assert not both.joined._states


def test_some_events_are_for_the_first_alone(both: Joined) -> None:
    a = publication("a:1", "dropped")
    both.joined.publish([a])
    assert (both.one.got, both.two.got) == ([a], [])
    both.one.confirm(a)
    assert both.confirmed == ["a:1"]


def test_all_is_done_to_all(both: Joined) -> None:
    both.joined.start()
    both.two.drains = False
    assert not both.joined.drain(1.0)
    both.joined.stop()
    both.joined.close(1.0)
    assert both.one.calls == both.two.calls == ["start", "drain", "stop", "close"]
    both.joined.publish([publication("a")])
    assert both.joined.pending() == Unconfirmed(2, 6.0)
    assert (both.joined.name, both.joined.batch) == ("longer", 5)
