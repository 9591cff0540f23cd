"""Admission and Retry-After, on simulated time: a queue, consumers, and clients that obey what they are told."""

import heapq
import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from math import ceil, inf
from typing import Any

import pytest

from infertool.gateway.admission import UNKNOWN_RATE_LIMIT, Admission, Asking
from infertool.gateway.classes import DEFAULTS, Class
from infertool.gateway.drain import DrainRate
from infertool.gateway.fair_queue import FairQueue
from infertool.gateway.problem import Reason

CLASSES = {each.name: each for each in DEFAULTS}
QUICK = Class("quick", 1, 2.0, 4)


def decide(admission: Admission, class_: Class = QUICK, **changes: Any) -> Any:
    figures = {"ahead": 0, "in_broker": 0, "rate": 10.0, "deadline_in_s": 600.0, "now": 0.0} | changes
    return admission.decide(class_, **figures)


@pytest.mark.parametrize(
    ("figures", "wait_s", "reason"),
    [
        ({}, 0, None),
        ({"ahead": 15, "in_broker": 4}, 1.9, None),
        ({"ahead": 15, "in_broker": 6}, 2.1, Reason.OVER_BUDGET),
        ({"ahead": 10, "deadline_in_s": 0.9}, 1.0, Reason.DEADLINE_TOO_EARLY),
        ({"ahead": 30, "deadline_in_s": 0.9}, 3.0, Reason.DEADLINE_TOO_EARLY),
        ({"ahead": 30, "deadline_in_s": 2.5}, 3.0, Reason.OVER_BUDGET),
        ({"deadline_in_s": 0}, None, Reason.DEADLINE_TOO_EARLY),
        ({"deadline_in_s": -1, "rate": None}, None, Reason.DEADLINE_TOO_EARLY),
        ({"ahead": 1, "rate": 0.0}, inf, Reason.OVER_BUDGET),
        ({"rate": 0.0}, 0, None),
        ({"rate": None}, 0, None),
        ({"rate": None, "ahead": UNKNOWN_RATE_LIMIT - 1}, None, None),
        ({"rate": None, "ahead": UNKNOWN_RATE_LIMIT}, None, Reason.OVER_BUDGET),
        ({"ahead": 10, "asking": Asking(ahead=1), "deadline_in_s": 0.5}, 0.1, None),
    ],
)
def test_what_cannot_be_served_in_time_is_refused(figures: dict[str, Any], wait_s: float, reason: Reason) -> None:
    verdict = decide(Admission(), **figures)
    assert verdict.predicted_wait_s == (wait_s if wait_s is None else pytest.approx(wait_s))
    assert (verdict.problem and verdict.problem.reason) is reason
    if verdict.problem:
        assert verdict.problem.reason.status == 429
        told = verdict.problem.retry_after_s
        assert (told is not None) == (reason is Reason.OVER_BUDGET and bool(figures.get("rate", 1)))


@pytest.mark.parametrize("rate", [0.0, 1.0, None])
def test_a_class_without_a_budget_takes_everything_that_has_time(rate: float | None) -> None:
    free = Class("free", 1, inf, 4)
    verdict = decide(Admission(), free, ahead=50, rate=rate, deadline_in_s=inf)
    assert verdict.problem is None


def test_retry_after_is_whole_seconds_up_to_30_and_then_absent() -> None:
    admission = Admission(random.Random(1))
    told = [decide(admission, ahead=21, asking=Asking(client=f"c{n}")).problem.retry_after_s for n in range(1000)]
    there = [each for each in told if each is not None]
    assert all(isinstance(each, int) and 1 <= each <= 30 for each in there)
    assert there == sorted(there)
    assert None not in told[:230]
    assert set(told[280:]) == {None}
    # 8.5 a second for 30 seconds: not one promise more than can be kept.
    assert len(there) == pytest.approx(255, rel=0.05)
    assert max(Counter(there).values()) <= 12


@pytest.mark.parametrize("excess_s", [3, 10, 24])
def test_retry_after_is_the_excess_and_up_to_a_fifth_more(excess_s: int) -> None:
    told = {
        decide(Admission(random.Random(seed)), ahead=20 + 10 * excess_s).problem.retry_after_s for seed in range(200)
    }
    assert min(told) in {excess_s, excess_s + 1}
    assert max(told) <= ceil(excess_s * 1.2)
    assert len(told) > 1 or excess_s == 3


def test_a_retry_before_its_time_is_told_the_rest_and_takes_no_second_place() -> None:
    admission = Admission(random.Random(1))
    asking = Asking(client="c", key="k", is_unique=True)
    first = decide(admission, ahead=100, asking=asking).problem.retry_after_s
    for now in range(first):
        told = decide(admission, ahead=100, asking=asking, now=float(now)).problem.retry_after_s
        assert told == first - now
    assert admission._returns["quick"].outstanding(1.0) == 1


def test_places_of_clients_that_do_not_come_back_are_free_again() -> None:
    admission = Admission(random.Random(1))
    for n in range(500):
        decide(admission, ahead=21, asking=Asking(client=f"c{n}"))
    assert decide(admission, ahead=15, asking=Asking(client="new")).problem
    returns = admission._returns["quick"]
    assert decide(admission, ahead=15, now=100.0, asking=Asking(client="new")).problem is None
    assert returns.outstanding(100.0) == 0
    assert not returns._by_request
    assert not returns._by_client


def test_one_client_does_not_take_all_places() -> None:
    admission = Admission(random.Random(1))
    for n in range(2000):
        decide(admission, ahead=21, asking=Asking(client="greedy", key=n))
    assert decide(admission, ahead=21, asking=Asking(client="modest")).problem.retry_after_s


@dataclass
class World:
    """A gateway's schedule before consumers that finish `capacity` requests a second, with clients that obey."""

    capacity: float
    seed: int = 1
    no_show: float = 0.0
    now: float = 0.0
    events: list[tuple[float, int, Any]] = field(default_factory=list)
    waits: dict[str, list[float]] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    first_retries: int = 0
    kept_promises: int = 0
    without_promise: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.numbers = count()
        self.queue = FairQueue(CLASSES)
        self.rate = DrainRate(lambda: self.now)
        self.admission = Admission(random.Random(self.seed))
        self.in_broker: list[str] = []
        self.requests: dict[str, tuple[str, str, float]] = {}
        self.places = max(round(self.capacity), 4)  # the broker holds a second of work
        self.busy = 0
        self.workers = 4

    def at(self, when: float, what: Any) -> None:
        heapq.heappush(self.events, (when, next(self.numbers), what))

    def run(self, until: float = inf) -> None:
        while self.events and self.events[0][0] <= until:
            self.now, _, what = heapq.heappop(self.events)
            what()

    def ask(self, class_name: str, client: str, key: str, attempt: int = 0) -> None:
        waiting = self.queue.waiting(class_name)
        verdict = self.admission.decide(
            CLASSES[class_name],
            ahead=self.queue.ahead(class_name),
            in_broker=len(self.in_broker) + self.busy,
            rate=self.rate.per_s,
            deadline_in_s=600,
            now=self.now,
            asking=Asking(
                client=client,
                key=key,
                ahead=self.queue.ahead(class_name, client),
                own_part=self.queue.waiting(class_name, client) / waiting if waiting else 0.0,
                class_share=self.queue.share(class_name),
                turn_part=self.queue.client_part(class_name, client),
            ),
        )
        self.first_retries += attempt == 1
        if verdict.problem is None:
            self.kept_promises += attempt == 1
            self.accepted[client] += 1
            self.requests[key] = class_name, client, self.now
            self.queue.push(key, class_name, client, 1)
            self.work()
            return
        self.refused[client] += 1
        if (told := verdict.problem.retry_after_s) is None:
            self.without_promise += 1
        elif self.rng.random() >= self.no_show:
            late = self.rng.uniform(0, 0.3)
            self.at(self.now + told + late, lambda: self.ask(class_name, client, key, attempt + 1))

    def work(self) -> None:
        while len(self.in_broker) < self.places and (key := self.queue.pop()):
            self.in_broker.append(key)
        while self.in_broker and self.busy < self.workers:
            key = self.in_broker.pop(0)
            self.busy += 1
            self.at(self.now + self.rng.uniform(0.5, 1.5) * self.workers / self.capacity, lambda key=key: self.end(key))
        self.rate.pending(len(self.in_broker) + self.busy, held_back=len(self.queue) > 0)

    def end(self, key: str) -> None:
        class_name, client, since = self.requests.pop(key)
        self.busy -= 1
        self.rate.completed()
        self.served[class_name] += 1
        self.served[client] += 1
        self.waits.setdefault(class_name, []).append(self.now - since)
        self.waits.setdefault(client, []).append(self.now - since)
        self.work()

    def burst(self, per_s: float, begin: float, seconds: float, name: str = "c", spiky: bool = False) -> None:
        """Ask `per_s` times a second, each time as another client: half of them interactive."""
        for n in range(round(per_s * seconds)):
            when = begin + (n // per_s if spiky else n / per_s)
            class_name = ("interactive", "standard", "interactive", "batch")[n % 4]
            self.at(when, lambda n=n, c=class_name: self.ask(c, f"{name}{n}", f"{name}{n}"))

    def p99(self, name: str) -> float:
        """Of a class, or of a client."""
        return sorted(self.waits[name])[int(0.99 * len(self.waits[name]))]


@pytest.mark.parametrize(
    ("capacity", "seconds", "options", "spiky"),
    [
        (100, 10, {}, False),
        (100, 10, {}, True),
        (50, 50, {}, False),
        (50, 50, {"no_show": 0.5}, False),
        (20, 10, {}, False),
        (300, 10, {}, False),
    ],
)
def test_a_burst_of_ten_times_the_capacity(capacity: float, seconds: int, options: Any, spiky: bool) -> None:
    world = World(capacity, **options)
    world.burst(0.7 * capacity, 0, 20, "calm")
    world.run(20)
    assert world.without_promise + world.first_retries <= 0.02 * 20 * capacity
    before = world.served.total() / 2
    world.burst(10 * capacity, 20, seconds, spiky=spiky)
    world.run(20 + seconds)
    # Capacity is used, whoever comes back or not.
    assert world.served.total() / 2 - before >= 0.9 * capacity * seconds
    mid = {name: world.served[name] for name in CLASSES}
    world.run()
    assert world.first_retries > capacity
    assert world.kept_promises >= 0.9 * world.first_retries
    # What was accepted is served within its class's budget, though the others never stop.
    for name, class_ in CLASSES.items():
        assert world.p99(name) <= class_.budget_s * 1.1
    assert mid["batch"] > 0
    assert not world.requests


def test_a_greedy_client_leaves_room_for_others() -> None:
    world = World(100)
    world.burst(20, 0, 10, "calm")
    for n in range(600 * 30):
        world.at(10 + n / 600, lambda n=n: world.ask("standard", "greedy", f"g{n}"))
    for n in range(20 * 30):
        world.at(10 + n / 20, lambda n=n: world.ask("standard", "modest", f"m{n}"))
    world.run(40)
    # A fifth of the capacity is less than the modest client's half: nearly all of it is accepted, most at once.
    assert world.accepted["modest"] >= 0.9 * 20 * 30
    assert world.served["greedy"] + world.served["modest"] >= 0.9 * 100 * 30


@pytest.mark.parametrize(
    ("class_name", "seconds", "number", "each_per_s"),
    [("interactive", 40, 2, 10), ("interactive", 40, 20, 4), ("standard", 100, 8, 10)],
)
def test_a_client_with_more_waiting_than_others_is_served_within_its_budget(
    class_name: str, seconds: int, number: int, each_per_s: int
) -> None:
    """Others, who come all the time, take a turn for each of its requests; what was accepted counts on that."""
    world = World(100)
    others = [f"modest{n}" for n in range(number)]
    for other in others:
        for n in range(each_per_s * seconds):
            when, key = n / each_per_s + world.rng.random(), f"{other}.{n}"
            world.at(when, lambda o=other, k=key: world.ask(class_name, o, k))
    for n in range(150 * (seconds - 10)):
        world.at(10 + n / 150, lambda n=n: world.ask(class_name, "greedy", f"g{n}"))
    world.run(seconds)
    # All of the capacity is used, and who asks for less than a share gets it at once.
    assert world.served[class_name] >= 0.9 * 100 * (seconds - 10)
    assert not any(world.refused[other] for other in others)
    world.run()
    assert world.p99("greedy") <= CLASSES[class_name].budget_s * 1.1
    assert world.kept_promises >= 0.9 * world.first_retries > 0
    assert max(max(world.waits[other]) for other in others) < 2


def test_promises_are_true_again_when_those_of_a_better_time_have_passed() -> None:
    world = World(50)
    world.burst(500, 0, 70)
    world.run(20)
    world.capacity = 20.0
    world.run(55)
    world.first_retries = world.kept_promises = 0
    world.run()
    assert world.kept_promises >= 0.9 * world.first_retries > 0
