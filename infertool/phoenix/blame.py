"""Whether the pushes of an event wait because the channel ended over several of them and takes none.

Then it is no single push: the server is at fault (its database is away), or the channel has no clause for the event.
"""

from __future__ import annotations

from infertool.phoenix.schedule import Schedule

# So many different pushes must end the channel, with none of their event confirmed in between.
_DIFFERENT = 2
# Waits between trials, in seconds: while nothing passes, and while other events do, which each trial holds up.
NOTHING_PASSES = Schedule((2.0, 5.0, 10.0, 20.0, 30.0, 60.0))
OTHERS_PASS = Schedule((30.0, 60.0, 120.0, 300.0))


class Blame:
    """Event by event, the pushes that ended the channel since one of that event was confirmed. Times are monotonic."""

    def __init__(self) -> None:
        self._pushes: dict[str, set[int]] = {}
        self._holds: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._pushes)

    def crashed(self, event: str, number: int, now: float, *, others_pass: bool) -> float | None:
        """Note that push `number` ended the channel; return for how many seconds its event waits, if it does."""
        pushes = self._pushes.setdefault(event, set())
        pushes.add(number)
        if len(pushes) < _DIFFERENT:
            return None
        holds = self._holds[event] = self._holds.get(event, 0) + 1
        wait_s = (OTHERS_PASS if others_pass else NOTHING_PASSES).wait(holds)
        self._until[event] = now + wait_s
        return wait_s

    def passed(self, event: str) -> None:
        """Note that a push of `event` was handled."""
        self._pushes.pop(event, None)
        self._holds.pop(event, None)
        self._until.pop(event, None)

    def acquit(self, event: str, number: int) -> None:
        """Note that push `number` itself was at fault, not its event."""
        pushes = self._pushes.get(event, set())
        pushes.discard(number)
        if not pushes:
            self.passed(event)

    def is_of_one(self, event: str, number: int) -> bool:
        """Whether no push of `event` but `number` ended the channel."""
        return self._pushes.get(event, set()) <= {number}

    def holds(self, event: str) -> bool:
        """Whether pushes of `event` are tried one at a time, if at all."""
        return event in self._until

    def waits(self, event: str, now: float) -> bool:
        """Whether it is too early to try one of `event`."""
        return self._until.get(event, 0.0) > now

    def expire(self) -> None:
        """Let every event be tried now: behind a new connection there may be another server."""
        self._until = dict.fromkeys(self._until, 0.0)
