"""The queue and the thread of one sink. A sink that hangs or fails holds up neither events nor other sinks."""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from infertool.alerts.engine import Notification
from infertool.alerts.sinks.port import Sink, SinkError

_MOST_WAITING: Final = 100
# Waits between the attempts of one notification. Seconds.
_WAITS_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class Delivery:
    """Delivers to `sink` in order. When 100 notifications wait, the oldest is dropped, counted and reported."""

    def __init__(self, sink: Sink, warn: Callable[[str], None], waits_s: Sequence[float] = _WAITS_S) -> None:
        self.sink = sink
        self.sent = 0
        self.dropped = 0
        self._warn = warn
        self._waits_s = tuple(waits_s)
        self._changed = threading.Condition()
        self._waiting: deque[Notification] = deque()
        self._repeat: list[Notification] = []
        self._current: Sequence[Notification] = ()
        self._busy = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"alerts to {sink.name}", daemon=True)
        self._thread.start()

    def put(self, notification: Notification) -> None:
        """Deliver `notification`, soon. Never blocks."""
        lost = None
        with self._changed:
            # What was queued as still firing must not arrive behind this.
            self._repeat = [each for each in self._repeat if each.rule != notification.rule]
            if len(self._waiting) >= _MOST_WAITING:
                lost = self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(notification)
            self._changed.notify_all()
        if lost:
            self._report_dropped(lost, f"{_MOST_WAITING} wait")

    def repeat(self, firing: Sequence[Notification]) -> None:
        """Tell again what fires, once. A newer call replaces one that has not begun."""
        with self._changed:
            newer = {each.rule for each in self._waiting}
            self._repeat = [each for each in firing if each.rule not in newer]
            self._changed.notify_all()

    @property
    def untold(self) -> frozenset[str]:
        """The rules whose notifications wait, or are being delivered."""
        with self._changed:
            return frozenset(each.rule for each in (*self._current, *self._waiting))

    def close(self, timeout_s: float) -> bool:
        """Wait for what is queued, at most `timeout_s`, and end. Return False if something was left."""
        with self._changed:
            done = self._changed.wait_for(lambda: not (self._waiting or self._busy), timeout_s)
            self._closed = True
            self._changed.notify_all()
        self.sink.close()
        return done

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._closed or self._waiting or self._repeat)
                if self._closed:
                    return
                self._busy = True
                repeated = [] if self._waiting else self._repeat
                if repeated:
                    self._repeat = []
                else:
                    self._current = [self._waiting.popleft()]
                batch = repeated or self._current
            # A repetition is not tried again: the next one follows.
            self._deliver(batch, () if repeated else self._waits_s)

    def _deliver(self, batch: Sequence[Notification], waits_s: Sequence[float]) -> None:
        key = f"msg_{uuid.uuid4().hex}"
        for number, wait_s in enumerate((*waits_s, None)):
            reason = self._attempt(batch, key)
            if not reason:
                self.sent += len(batch)
                self._current = ()
                return
            if wait_s is None:
                break
            if number == 0:
                self._warn(f"alerts to {self.sink.name}: {reason}; it is tried again")
            with self._changed:
                if self._changed.wait_for(lambda: self._closed, wait_s):
                    return
        if waits_s:
            self._current = ()
            self.dropped += len(batch)
            self._report_dropped(batch[0], reason)

    def _attempt(self, batch: Sequence[Notification], key: str) -> str:
        """Return why the sink did not take `batch`, or "" if it did."""
        try:
            self.sink.send(batch, key)
        except SinkError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001  (the thread must live on: the next notification may fit)
            return f"{type(error).__name__}: {error}"
        return ""

    def _report_dropped(self, lost: Notification, reason: str) -> None:
        self._warn(
            f"alerts to {self.sink.name}: {lost.rule} {lost.state} is dropped: {reason}; {self.dropped} dropped so far"
        )
