"""What a person is told while pushes wait for their proofs: after the first timeout, then ever more seldom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from infertool.phoenix.push import Entry

if TYPE_CHECKING:
    from infertool.settings.tree import PhoenixSettings

_LONGEST_PAUSE_S = 300.0


class Silence:
    """Watches the age of the oldest unconfirmed push under the present join. Times are monotonic, in seconds."""

    def __init__(self, settings: PhoenixSettings) -> None:
        self._settings = settings
        self._pause_s = 0.0
        self._next = 0.0

    def look(self, unconfirmed: Sequence[Entry], now: float, *, proved_before: bool) -> str | None:
        """Return what is to be said now, if anything.

        `proved_before` says whether a push of the oldest one's event was ever proved.
        """
        timeout_s = self._settings.push_timeout_s
        age = now - unconfirmed[0].sent_at if unconfirmed else 0.0
        if now < self._next:
            return None
        if age < timeout_s:
            waited, self._pause_s = self._pause_s, 0.0
            return f"{self._settings.topic} proves its pushes again" if waited else None
        self._pause_s = max(timeout_s, min(2 * self._pause_s, _LONGEST_PAUSE_S))
        self._next = now + self._pause_s
        oldest = unconfirmed[0]
        return f"{self._what(oldest, len(unconfirmed), age)}; {self._advice(oldest, proved_before=proved_before)}"

    def no_proof(self, event: str) -> str:
        """Return what is to be said when auto has to do with heartbeats."""
        return (
            f"{self._settings.topic} answers {event} neither with a reply nor with a broadcast on {self._public()}; "
            "confirming by heartbeats, which prove only that the server read it (phoenix.confirm chooses another way)"
        )

    def _public(self) -> str:
        return " or ".join(dict.fromkeys([self._settings.result_topic, self._settings.alert_topic]))

    def _what(self, oldest: Entry, count: int, age: float) -> str:
        mode = self._settings.confirm
        return (
            f"no proof from {self._settings.topic} for {count} pushes (phoenix.confirm = {mode}): "
            f"the oldest, {oldest.push}, was pushed {age:.0f} s ago"
        )

    def _advice(self, oldest: Entry, *, proved_before: bool) -> str:
        event, mode = oldest.push.event, self._settings.confirm
        if proved_before:
            return (
                "the channel answered earlier, so it is blocked, or ignored this one; see the server's log. "
                "Pushes are kept, and not repeated while the channel answers nothing"
            )
        if mode == "reply":
            return (
                f"reply needs a channel that answers {event} with {{:reply, :ok, socket}}; if it only broadcasts, set "
                "phoenix.confirm = echo; if it does neither, barrier"
            )
        if mode == "echo":
            return (
                f"echo needs a channel that broadcasts {event} with its event_id on {self._public()}: check "
                "phoenix.result_topic and phoenix.alert_topic; if it does not broadcast, set phoenix.confirm = reply "
                "or barrier"
            )
        return f"the server answers neither {event} nor a heartbeat behind it; see the server's log"
