"""`broker.queue` with weights: what it names, and what is no such thing."""

import pytest

from infertool import brokers
from infertool.app.consumer import check_queues
from infertool.brokers import weighted_queues
from infertool.brokers.weighted_queues import WeightedQueue
from infertool.errors import SettingsError, UsageError
from infertool.settings import Settings
from infertool.settings.broker import BrokerSettings
from infertool.settings.tree import DeadLetterSettings


def settings(queue: str, url: str = "stomp://h", dead: str = "dead") -> Settings:
    return Settings(broker=BrokerSettings(url=url, queue=queue), deadletter=DeadLetterSettings(queue=dead))


@pytest.mark.parametrize(
    ("text", "queues"),
    [
        ("high=8,normal=3,low=1", [("high", 8), ("normal", 3), ("low", 1)]),
        (" high = 8 , low = 0.5 ", [("high", 8), ("low", 0.5)]),
        ("/queue/a=2,/queue/b.>=1", [("/queue/a", 2), ("/queue/b.>", 1)]),
        ("orders", [("orders", 1)]),
        ("a,b", [("a,b", 1)]),
        ("ai.*", [("ai.*", 1)]),
        ("orders=8", [("orders=8", 1)]),
        ("orders?consumer.priority=5", [("orders?consumer.priority=5", 1)]),
        ("a?consumer.priority=5,b?consumer.priority=6", [("a?consumer.priority=5,b?consumer.priority=6", 1)]),
    ],
)
def test_what_a_setting_names(text: str, queues: list[tuple[str, float]]) -> None:
    assert weighted_queues.parse(text) == [WeightedQueue(*each) for each in queues]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a=8,b", "some of its queues only"),
        ("a=8,", "some of its queues only"),
        ("a=8,b=", "no weight"),
        ("a=8,b=0", "no weight"),
        ("a=8,b=-1", "no weight"),
        ("a=8,b=nan", "no weight"),
        ("a=8,b=1e3", "no weight"),
        ("a=8,b=1001", "no weight"),
    ],
)
def test_what_is_no_list_of_weights_says_why(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        weighted_queues.parse(text)


@pytest.mark.parametrize("url", ["stomp://h", "amqp://h", "memory://h"])
def test_names_become_full_and_are_checked_one_by_one(url: str) -> None:
    full = brokers.with_full_names(settings("/queue/high=8,low=1", url)).broker.queue
    spelling = brokers.conventions(url)
    assert weighted_queues.names(full) == [spelling.queue("high"), spelling.queue("low")]
    assert brokers.with_full_names(settings(full, url)).broker.queue == full
    assert weighted_queues.spelled(full, spelling.short) == "high=8,low=1"
    for wrong in ("low=8,low=1", "=8,low=1", " =8,low=1"):
        with pytest.raises(SettingsError) as caught:
            brokers.with_full_names(settings(wrong, url))
        assert caught.value.key == "broker.queue"


def test_patterns_that_take_from_each_other_and_from_the_dead_letters_are_refused() -> None:
    with pytest.raises(SettingsError, match="covers"):
        brokers.with_full_names(settings("ai.>=8,ai.low=1"))
    for wrong in ("high=8,dead=1", "ai.high=8,*=1"):
        with pytest.raises(SettingsError, match=r"consumed again|covers"):
            check_queues(brokers.with_full_names(settings(wrong)))
    check_queues(brokers.with_full_names(settings("high=8,low=1")))
