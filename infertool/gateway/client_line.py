"""The waiting requests of one client, in the order of their arrival."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict

_SLACK = 64


class ClientLine:
    """First in, first out. Requests leave it from the middle, too, and their rank is known without a search.

    `tag` is the virtual time at which the first request is due, and `order` breaks ties: the queue sets both.
    """

    __slots__ = ("_next", "_numbers", "_removed", "client", "order", "share", "tag")

    def __init__(self, client: str, share: float) -> None:
        self.client = client
        self.share = share
        self.tag = 0.0
        self.order = 0
        self._numbers: OrderedDict[str, int] = OrderedDict()
        self._removed: list[int] = []
        self._next = 0

    def __len__(self) -> int:
        return len(self._numbers)

    def push(self, request_id: str) -> None:
        """Add a request at the end."""
        self._numbers[request_id] = self._next
        self._next += 1

    def pop(self) -> str:
        """Take the first request off."""
        return self._numbers.popitem(last=False)[0]

    def remove(self, request_id: str) -> None:
        """Take a request off, wherever it is."""
        number = self._numbers.pop(request_id)
        if self._numbers and number > self._first():
            insort(self._removed, number)
            if len(self._removed) > len(self._numbers) + _SLACK:
                self._renumber()

    def rank(self, request_id: str) -> int:
        """Return the number of requests before this one."""
        number, first = self._numbers[request_id], self._first()
        gaps = bisect_left(self._removed, number) - bisect_left(self._removed, first)
        return number - first - gaps

    def _first(self) -> int:
        return self._numbers[next(iter(self._numbers))]

    def _renumber(self) -> None:
        for number, request_id in enumerate(self._numbers):
            self._numbers[request_id] = number
        self._next = len(self._numbers)
        self._removed.clear()
