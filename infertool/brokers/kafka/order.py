"""Events of one key, one after another. Pure; not thread-safe."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class KeyOrder(Generic[T]):
    """Holds an event back while an earlier one of its key is not settled; other keys pass.

    An event is named by its offset. `held` is the number of those held back.
    """

    def __init__(self) -> None:
        self.held = 0
        # Behind each key that has an event in work: the later ones.
        self._waiting: dict[bytes, deque[tuple[int, T]]] = {}
        self._keys: dict[int, bytes] = {}

    def add(self, offset: int, key: bytes | None, event: T) -> bool:
        """Return True if the event can be given out now, else hold it. An event without a key waits for none."""
        if key is None:
            return True
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append((offset, event))
            self.held += 1
            return False
        self._waiting[key] = deque()
        self._keys[offset] = key
        return True

    def settle(self, offset: int) -> T | None:
        """Note that an event is settled; return the next one of its key, which can be given out now."""
        key = self._keys.pop(offset, None)
        if key is None:
            return None
        waiting = self._waiting[key]
        if not waiting:
            del self._waiting[key]
            return None
        self.held -= 1
        following, event = waiting.popleft()
        self._keys[following] = key
        return event
