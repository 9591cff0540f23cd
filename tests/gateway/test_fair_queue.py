"""The queue before the broker: weights of classes, shares of clients, positions, bounds."""

import copy
import random
import time
from collections import Counter
from math import inf

import pytest

from infertool.gateway.classes import DEFAULTS, Class
from infertool.gateway.fair_queue import FairQueue

CLASSES = {each.name: each for each in DEFAULTS}
ONE = {"only": Class("only", 1, inf, 4)}


def drained(queue: FairQueue) -> list[str]:
    found = []
    while (each := queue.pop()) is not None:
        found.append(each)
    return found


@pytest.mark.parametrize("weights", [(8, 3, 1), (1, 1, 1), (100, 1, 0.5), (2.5, 1.5, 1)])
def test_saturated_classes_get_their_weights_and_a_class_alone_gets_everything(weights: tuple[float, ...]) -> None:
    classes = {name: Class(name, weight, inf, 4) for name, weight in zip("abc", weights, strict=True)}
    queue = FairQueue(classes)
    pops: Counter[str] = Counter()
    for name in "cba":
        for n in range(50):
            queue.push(f"{name}{n}", name, "client", 1)
    for n in range(4000):  # each pop is followed by an arrival of the same class: nothing runs dry
        name = (queue.pop() or "")[0]
        pops[name] += 1
        queue.push(f"{name}+{n}", name, "client", 1)
    for name, weight in zip("abc", weights, strict=True):
        assert pops[name] / 4000 == pytest.approx(weight / sum(weights), rel=0.1)
    queue = FairQueue(classes)
    for n in range(20):
        queue.push(f"{n}", "c", "client", 1)
    assert drained(queue) == [f"{n}" for n in range(20)]


def test_a_class_that_was_idle_gets_no_credit_for_that_time_and_is_served_soon() -> None:
    queue = FairQueue(CLASSES)
    for n in range(5000):
        queue.push(f"batch{n}", "batch", "b", 1)
    for _ in range(4000):
        queue.pop()
    for n in range(1000):
        queue.push(f"interactive{n}", "interactive", "i", 1)
    first = [(queue.pop() or "")[0] for _ in range(900)]
    assert first[0] == "i"
    assert Counter(first)["b"] == pytest.approx(100, rel=0.1)


def test_nothing_waits_longer_than_the_bound_whatever_arrives() -> None:
    """The n-th of its class is taken after at most n * W/w + C pops; clients and classes come and go at random."""
    rng = random.Random(4)
    queue = FairQueue(CLASSES)
    whole, popped = sum(each.weight for each in DEFAULTS), 0
    bounds: dict[str, float] = {}
    for n in range(20_000):
        name = rng.choice(("interactive", "interactive", "standard", "batch"))
        if rng.random() < 0.8 or not len(queue):
            ahead = queue.waiting(name)
            queue.push(f"{n}", name, "same", 1)
            bounds[f"{n}"] = popped + (ahead + 1) * whole / CLASSES[name].weight + len(CLASSES)
        if rng.random() < 0.75 and (taken := queue.pop()):
            popped += 1
            assert popped <= bounds.pop(taken)
    for taken in drained(queue):
        popped += 1
        assert popped <= bounds.pop(taken)
    assert not bounds


def test_new_clients_without_end_do_not_starve_a_waiting_one() -> None:
    """The (j + 1)-th of a client is taken after at most (j + 1) * m pops, though each newcomer waits less."""
    queue = FairQueue(ONE)
    for n in range(50):
        queue.push(f"old{n}", "only", "old", 1)
    most = 1
    taken: list[str] = []
    for n in range(400):
        for which in range(3):
            queue.push(f"new{n}.{which}", "only", f"client{n}.{which}", 1)
        most = max(most, len(queue._classes["only"].lines))
        taken += [queue.pop() or "" for _ in range(3)]
    taken += drained(queue)
    at = [index for index, each in enumerate(taken) if each.startswith("old")]
    assert len(at) == 50
    assert at[40] < 1200 - 200  # they do not wait for the end of the newcomers
    assert all(index < (number + 1) * most for number, index in enumerate(at))


def test_a_greedy_client_gets_its_share_and_shares_may_differ() -> None:
    queue = FairQueue(ONE)
    for n in range(10_000):
        queue.push(f"greedy{n}", "only", "greedy", 1)
    for n in range(200):
        queue.push(f"modest{n}", "only", "modest", 1)
        queue.push(f"double{n}", "only", "double", 1, share=2.0)
    first = Counter((queue.pop() or "")[:6] for _ in range(400))
    assert first == {"greedy": 100, "modest": 100, "double": 200}


@pytest.mark.parametrize("seed", range(4))
def test_positions_are_those_in_which_requests_run(seed: int) -> None:
    rng = random.Random(seed)
    queue = FairQueue(CLASSES)
    waiting: list[str] = []
    for n in range(400):
        queue.push(f"{n}", rng.choice(list(CLASSES)), f"client{rng.randrange(5)}", 10)
        waiting.append(f"{n}")
        if rng.random() < 0.3:
            gone = waiting.pop(rng.randrange(len(waiting)))
            assert queue.remove(gone)
        if rng.random() < 0.2:
            waiting.remove(queue.pop() or "")
    assert queue.bytes == 10 * len(queue) == 10 * len(waiting)
    told = {each: queue.position(each) for each in waiting}
    for place, each in enumerate(drained(copy.deepcopy(queue))):
        assert told[each] == pytest.approx(place, abs=len(CLASSES))
    name, client = rng.choice(list(CLASSES)), rng.choice(["client1", "new"])
    ahead = queue.ahead(name, client)
    queue.push("asking", name, client, 0)
    position, expected = queue.position("asking"), queue.expected("asking")
    assert drained(queue).index("asking") == pytest.approx(position, abs=len(CLASSES))
    assert expected == pytest.approx(ahead, rel=0.05)  # a push later
    assert ahead >= (position or 0) - 1
    assert queue.bytes == 0
    assert queue.position("asking") is None


def test_positions_of_one_request_by_each_of_many_clients_are_exact() -> None:
    queue = FairQueue(ONE)
    for n in range(1000):
        queue.push(f"{n}", "only", f"client{n}", 1)
    assert [queue.position(f"{n}") for n in (0, 1, 500, 999)] == [0, 1, 500, 999]
    for _ in range(40):
        queue.pop()
    assert queue.position("500") == 460
    assert queue.ahead("only", "another") == 960
    assert queue.ahead("only") == 960


def test_positions_among_many_clients_are_close() -> None:
    rng = random.Random(5)
    queue = FairQueue(ONE)
    for n in range(3000):
        queue.push(f"{n}", "only", f"client{rng.randrange(40)}", 1)
        if n % 7 == 0:
            queue.remove(f"{rng.randrange(n + 1)}")
        if n % 5 == 0:
            queue.pop()
    told = {f"{n}": queue.position(f"{n}") for n in range(3000)}
    for place, each in enumerate(drained(queue)):
        assert told[each] == pytest.approx(place, abs=40)  # one round of the clients


def test_what_is_ahead_of_a_class_follows_the_weights() -> None:
    queue = FairQueue(CLASSES)
    for n in range(120):
        queue.push(f"s{n}", "standard", "s", 1)
        queue.push(f"b{n}", "batch", "b", 1)
    assert queue.ahead("interactive") <= 2
    assert queue.ahead("standard") == pytest.approx(120 * 4 / 3, abs=3)
    # Three standard requests for each of batch: it is taken for granted that they go on to come.
    assert queue.ahead("batch") == pytest.approx(480, rel=0.1)
    assert queue.position("b119") == pytest.approx(239, abs=3)
    assert queue.expected("b119") == pytest.approx(476, rel=0.1)
    assert queue.share("interactive") == pytest.approx(8 / 12, rel=0.1)
    assert queue.share("standard") == pytest.approx(3 / 4, rel=0.1)
    drained(queue)
    assert [queue.share(name) for name in CLASSES] == [1, 1, 1]


def test_removed_requests_leave_nothing_behind() -> None:
    queue = FairQueue(ONE)
    assert queue.pop() is None
    assert not queue.remove("never")
    queue.push("stays", "only", "other", 1)
    for n in range(2000):  # one client comes and goes; another cancels from the middle of a long line
        queue.push(f"a{n}", "only", "comes", 1)
        assert queue.remove(f"a{n}")
        queue.push(f"b{n}", "only", "long", 1)
        if n >= 2:
            assert queue.remove(f"b{n - 1}")
    with pytest.raises(ValueError, match="waits already"):
        queue.push("stays", "only", "other", 1)
    only = queue._classes["only"]
    assert len(only._due) < 200
    assert len(only.lines["long"]._removed) < 200
    assert queue.position("b1999") in {1, 2}
    assert sorted(drained(queue)) == ["b0", "b1999", "stays"]
    assert not only.lines


def test_the_cost_of_a_call_does_not_grow_with_the_requests() -> None:
    def cost(requests: int) -> float:
        queue = FairQueue(CLASSES)
        for n in range(requests):
            queue.push(f"{n}", "interactive" if n % 2 else "batch", f"client{n % 500}", 1)
        best = inf
        for round_ in range(5):
            begin = time.perf_counter()
            for n in range(300):
                queue.pop()
                queue.position(f"{requests - 1 - n}")
                queue.push(f"{round_}.{n}", "standard", f"client{n}", 1)
                queue.remove(f"{round_}.{n}")
                queue.ahead("batch")
            best = min(best, time.perf_counter() - begin)
        return best

    assert cost(100_000) < 12 * cost(2000)  # a search through all would cost a hundred times as much
