"""The queue before the broker: weighted classes, and within a class fair shares by client.

Self-clocked fair queueing on two levels. A line of requests has a *tag*, the virtual time at which its first request is
due; the line with the least tag goes first, the queue's virtual time becomes that tag, and the line's next request is
due 1/weight later. A line that begins to wait is due 1/weight after the virtual time: it gets no credit for the time
before. The lines are the classes, and within a class its clients.

Nothing starves, whatever arrives later:

- The n-th request of a class is taken after at most n * W/w + C pops. w is the weight of the class, W the sum of
  all weights, C the number of classes.
- A request with j requests of its own client before it is taken after at most (j + 1) * m pops of its class, if
  clients have equal shares. m is the number of clients that wait in the class at one time, at most.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from itertools import count
from math import ceil, floor

from infertool.gateway.classes import Class
from infertool.gateway.client_line import ClientLine
from infertool.gateway.positions import Positions

_NEAR = 1e-9
_LATE = 64
"""Pushes and pops that count as of late. Since the queue was empty there may have been fewer: a burst shows at once."""
_LATE_CLIENTS = 512
"""The same for the clients of a class, whose number changes with each of their requests."""
_SLACK = 64
_FEW = 16
"""Clients of a class that are looked at one by one."""


class _ClassQueue:
    """The requests of one class. `tag` is its own among the classes."""

    def __init__(self, class_: Class, index: int) -> None:
        self.weight = class_.weight
        self.index = index
        self.tag = 0.0
        self.length = 0
        self.busy = 0.0
        """The part of the pushes and pops of late at which this class had requests waiting."""
        self.lines: dict[str, ClientLine] = {}
        self.shares = 0.0
        """The shares of the clients that wait."""
        self.busy_shares = 0.0
        """The same, on average over the pushes and pops of late."""
        self._virtual_time = 0.0
        self._due: list[tuple[float, int, ClientLine]] = []
        self._orders = count()
        self._picture: Positions | None = None

    def push(self, request_id: str, client: str, share: float) -> ClientLine:
        line = self.lines.get(client)
        if line is None:
            line = self.lines[client] = ClientLine(client, share)
            self.shares += share
            self._schedule(line, self._virtual_time)
        line.push(request_id)
        self.length += 1
        self._change(pops=0)
        return line

    def pop(self) -> str:
        while True:
            tag, _, line = heapq.heappop(self._due)
            if line:  # a line that was emptied by removals stays in the heap
                break
        request_id = line.pop()
        self.length -= 1
        self._virtual_time = tag
        if line:
            self._schedule(line, tag)
        else:
            self._forget(line)
        self._change(pops=1)
        return request_id

    def remove(self, request_id: str, line: ClientLine) -> None:
        line.remove(request_id)
        self.length -= 1
        if not line:
            self._forget(line)
            if len(self._due) > 2 * len(self.lines) + _SLACK:
                self._due = [(each.tag, each.order, each) for each in self.lines.values()]
                heapq.heapify(self._due)
        self._change(pops=0)

    def rank(self, line: ClientLine, before: int) -> int:
        """Return the number of requests of this class that run before the one behind `before` of its line."""
        if len(self.lines) <= _FEW:
            return before + sum(_before_same(line, before, other) for other in self.lines.values() if other is not line)
        picture = self._positions()
        rank = picture.before(line.tag + before / line.share, None if before else line.order)
        return max(rank + (before if line.order >= picture.order else 0), before)

    def rank_of_new(self, client: str, share: float) -> int:
        """Return the number of requests of this class that would run before a new one of this client."""
        line = self.lines.get(client)
        if line is not None:
            return self.rank(line, len(line))
        if len(self.lines) <= _FEW:
            new = ClientLine(client, share)
            new.tag, new.order = self._virtual_time + 1 / share, next(self._orders)
            return self.rank(new, 0)
        picture = self._positions()
        return picture.before(self._virtual_time + 1 / share, picture.order)

    def rank_with_turns(self, rank: int, before: int, share: float, *, waits: bool) -> int:
        """Return a rank with what other clients will have asked for until then, if as many wait as of late.

        It is that of a request with `before` requests of its own client before it. The others take a turn for each of
        these. `waits`: the client is one of those that wait.
        """
        return max(rank, round(before / self.part(share, waits=waits)))

    def part(self, share: float, *, waits: bool) -> float:
        """Return the part of the class that a client with this share has beside those that waited of late."""
        others = max(self.busy_shares - (share if waits else 0.0), 0.0)
        return share / (share + others)

    def _forget(self, line: ClientLine) -> None:
        del self.lines[line.client]
        self.shares -= line.share

    def _schedule(self, line: ClientLine, start: float) -> None:
        line.tag, line.order = start + 1 / line.share, next(self._orders)
        heapq.heappush(self._due, (line.tag, line.order, line))

    def _positions(self) -> Positions:
        if self._picture is None:
            self._picture = Positions(self.lines.values(), next(self._orders))
        return self._picture

    def _change(self, *, pops: int) -> None:
        if self._picture and not self._picture.is_fresh_after(pops=pops):
            self._picture = None


def _before_same(line: ClientLine, before: int, other: ClientLine) -> int:
    """Return how many of the other line's requests run before the one behind `before` of this line."""
    steps = (line.tag + before / line.share - other.tag) * other.share
    number = max(ceil(steps - _NEAR), 0)
    if abs(steps - number) < _NEAR and (-other.tag, other.order) < (-line.tag, line.order):
        number += 1  # both have the same tag; the line that got it first goes first
    return min(number, len(other))


class FairQueue:
    """Ids of requests, in the order in which they run. All calls cost at most O(log requests). For one thread."""

    def __init__(self, classes: Mapping[str, Class]) -> None:
        self._classes = {name: _ClassQueue(each, index) for index, (name, each) in enumerate(classes.items())}
        self._where: dict[str, tuple[_ClassQueue, ClientLine, int]] = {}
        self._virtual_time = 0.0
        # Pushes and pops since the queue was empty.
        self._looks = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._where)

    def push(self, request_id: str, class_name: str, client: str, size: int, *, share: float = 1.0) -> None:
        """Add a request of `size` bytes.

        `share` is the client's share in relation to other clients; that of its first waiting request counts.
        """
        if request_id in self._where:
            raise ValueError(f"{request_id} waits already")
        queue = self._classes[class_name]
        if not queue.length:
            queue.tag = self._virtual_time + 1 / queue.weight
        self._look()
        line = queue.push(request_id, client, share)
        self._where[request_id] = queue, line, size
        self.bytes += size

    def pop(self) -> str | None:
        """Take the next request off; None if nothing waits."""
        self._look()
        best = None
        for queue in self._classes.values():
            if queue.length and (best is None or queue.tag < best.tag):
                best = queue
        if best is None:
            return None
        request_id = best.pop()
        self.bytes -= self._where.pop(request_id)[2]
        self._virtual_time = best.tag
        best.tag += 1 / best.weight
        if not self._where:
            self._virtual_time = 0.0
            self._looks = 0
            for queue in self._classes.values():
                queue.busy = queue.busy_shares = 0.0
        return request_id

    def remove(self, request_id: str) -> bool:
        """Take a request off. Return False if it does not wait."""
        found = self._where.pop(request_id, None)
        if found is None:
            return False
        queue, line, size = found
        queue.remove(request_id, line)
        self.bytes -= size
        return True

    def position(self, request_id: str) -> int | None:
        """Return the number of requests that run before this one if nothing arrives; None if it does not wait."""
        found = self._where.get(request_id)
        if found is None:
            return None
        queue, line, _ = found
        return self._before(queue, queue.rank(line, line.rank(request_id)))

    def ahead(self, class_name: str, client: str | None = None, *, share: float = 1.0) -> int:
        """Return the number of requests that will run before a new one of this class.

        With a client it is an estimate for this very client. Without one all that waits in the class is ahead: the
        bound for every client, whoever else arrives. Requests of other classes that arrive later are expected as they
        came of late.
        """
        if not self._where:
            return 0
        queue = self._classes[class_name]
        if client is None:
            return self._expected(queue, queue.length)
        own = self.waiting(class_name, client)
        rank = queue.rank_with_turns(queue.rank_of_new(client, share), own, share, waits=own > 0)
        return self._expected(queue, rank)

    def expected(self, request_id: str) -> int | None:
        """Return the number of requests that will run before this one, if others arrive as of late."""
        found = self._where.get(request_id)
        if found is None:
            return None
        queue, line, _ = found
        before = line.rank(request_id)
        rank = queue.rank_with_turns(queue.rank(line, before), before, line.share, waits=True)
        return self._expected(queue, rank)

    def waiting(self, class_name: str, client: str | None = None) -> int:
        """Return the number of waiting requests of a class, or of one client in it."""
        queue = self._classes[class_name]
        if client is None:
            return queue.length
        line = queue.lines.get(client)
        return len(line) if line else 0

    def share(self, class_name: str) -> float:
        """Return the part of the capacity that a class has, or would have, beside the classes that waited of late."""
        queue = self._classes[class_name]
        return 1 / (1 + self._others(queue))

    def client_part(self, class_name: str, client: str, *, share: float = 1.0) -> float:
        """Return the part of its class that a client has, or would have, beside the clients that waited of late."""
        return self._classes[class_name].part(share, waits=self.waiting(class_name, client) > 0)

    def _look(self) -> None:
        self._looks += 1
        for queue in self._classes.values():
            queue.busy += ((queue.length > 0) - queue.busy) / min(self._looks, _LATE)
            queue.busy_shares += (queue.shares - queue.busy_shares) / min(self._looks, _LATE_CLIENTS)

    def _expected(self, queue: _ClassQueue, rank: int) -> int:
        return max(self._before(queue, rank), round(rank * (1 + self._others(queue))))

    def _others(self, queue: _ClassQueue) -> float:
        """Return the number of requests of other classes for each one of this class."""
        return sum(each.weight * each.busy for each in self._classes.values() if each is not queue) / queue.weight

    def _before(self, queue: _ClassQueue, rank: int) -> int:
        """Return the number of requests of all classes that run before the one of this rank in its class."""
        tag = (queue.tag if queue.length else self._virtual_time + 1 / queue.weight) + rank / queue.weight
        total = rank
        for other in self._classes.values():
            if other is not queue and other.length:
                steps = (tag - other.tag) * other.weight
                first = other.index < queue.index  # wins a tie
                total += min(max(floor(steps + _NEAR) + 1 if first else ceil(steps - _NEAR), 0), other.length)
        return total
