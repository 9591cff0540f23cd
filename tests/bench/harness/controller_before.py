"""The controller of batches that infertool had before: additive increase, multiplicative decrease. Its row remains."""

from __future__ import annotations

from collections.abc import Hashable

_DECREASE = 0.75
_HEADROOM = 0.9
_LATEST = 0.2


class ControllerBefore:
    """See `infertool.consumer.batching.port.Batches`."""

    def __init__(self, largest: int, longest_wait_s: float, target_s: float) -> None:
        self.size = min(4, largest)
        self._largest = largest
        self._longest_wait_s = longest_wait_s
        self._target_s = target_s
        self._wait_s = min(longest_wait_s, target_s / 2)
        self._mean_s: float | None = None

    def arrived(self, count: int, now: float) -> None:
        pass

    def wait_s(self, caller: Hashable, waiting: int, oldest_at: float, now: float) -> float:
        return 0.0 if waiting >= self.size else max(0.0, self._wait_s - (now - oldest_at))

    def take(self, caller: Hashable, waiting: int, now: float) -> int:
        return min(waiting, self.size)

    def began(self, caller: Hashable, size: int, now: float) -> None:
        pass

    def ended(self, caller: Hashable) -> None:
        pass

    def forget(self, caller: Hashable) -> None:
        pass

    def measured(self, caller: Hashable, size: int, started: float, seconds: float) -> None:
        if seconds > self._target_s:
            self.size = max(1, int(self.size * _DECREASE))
        elif size >= self.size and seconds < _HEADROOM * self._target_s:
            self.size = min(self._largest, self.size + 1)
        self._mean_s = seconds if self._mean_s is None else self._mean_s + _LATEST * (seconds - self._mean_s)
        self._wait_s = min(self._longest_wait_s, max(0.0, self._target_s - self._mean_s))

    def found(self) -> dict[str, int]:
        return {}
