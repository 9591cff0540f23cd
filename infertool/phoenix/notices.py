"""Texts of warnings and rejections: pushes that end the channel, and pushes that stay unconfirmed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from infertool.errors import InfertoolError
from infertool.phoenix.membership import Loss
from infertool.phoenix.push import BATCH_EVENT, Entry
from infertool.phoenix.suspects import Cause, Finding

if TYPE_CHECKING:
    from infertool.settings.tree import PhoenixSettings


CRASHED = "channel crashed"
_SIZE_ADVICE = (
    "lower publish.max_bytes, or raise the server's limit (max_frame_size of its socket; without it that of "
    "websock_adapter or Bandit)"
)


def why(loss: Loss, reason: str) -> str:
    """Return the loss, with the server's reason if there is one."""
    return f"{loss}: {reason}" if reason else str(loss)


def rejection(loss: Loss, reason: str, finding: Finding[Any]) -> str:
    """Return the reason for rejecting a push that ended the channel."""
    if loss is Loss.TOO_LARGE:
        return f"{reason}: its {len(finding.suspect.push.payload)} bytes are more than the server takes; {_SIZE_ADVICE}"
    return reason or CRASHED


def described(topic: str, loss: Loss, reason: str, finding: Finding[Any] | None) -> str:
    """Return one line: what happened on `topic`, which push caused it, and what follows."""
    text = f"{topic}: {why(loss, reason)}"
    if finding is None:
        return f"{text}; joining again"
    text = f"{text}; {_which(loss, finding)}; joining again"
    if loss is Loss.TOO_LARGE:
        text = f"{text}; {_SIZE_ADVICE}"
    return text


def _which(loss: Loss, finding: Finding[Any]) -> str:
    push, wait = finding.suspect.push, f"{finding.wait_s or 0:.0f} s"
    match finding.cause:
        case Cause.PUSH:
            proof = f"by its {len(push.payload)} bytes" if loss is Loss.TOO_LARGE else f"while other {push.event} pass"
            return f"{push} ends it, also when sent alone, {proof}: it is rejected"
        case Cause.PAYLOAD:
            return f"{push} ends it, also when sent alone: it is pushed again without its payload"
        case Cause.BATCH:
            return f"the first unconfirmed push was {push}: its results are pushed one by one"
        case Cause.EVENT:
            return (
                f"every {push.event} ends it, now {push}, while other events pass: does the channel have a clause for "
                f"it? See the server's log. Pushes of {push.event} wait; the next try is in {wait}"
            )
        case Cause.SERVER:
            return (
                f"different pushes end it, now {push}, and none passes: the server seems at fault, not the events "
                f"(see its log). {push.event} waits, nothing is dead-lettered, the next try is in {wait}"
            )
    return _suspected(loss, finding)


def _suspected(loss: Loss, finding: Finding[Any]) -> str:
    push = finding.suspect.push
    place = "largest" if loss is Loss.TOO_LARGE else "first"
    which = "the only" if finding.lost == 1 else f"the {place} of {finding.lost}"
    text = f"{which} unconfirmed push{'' if finding.lost == 1 else 'es'} was {push}"
    if finding.wait_s is not None:
        text = f"{text}, and no {push.event} has passed since the join: it waits for {finding.wait_s:.0f} s"
    return text


_LONGEST_PAUSE_S = 300.0


class Silence:
    """Warns while pushes stay unconfirmed: after the push timeout, then at twice the distance each, up to 300 s.

    Times are monotonic, in seconds.
    """

    def __init__(self, settings: PhoenixSettings) -> None:
        self._settings = settings
        self._pause_s = 0.0
        self._next = 0.0

    def look(self, unconfirmed: Sequence[Entry[Any]], now: float, *, confirmed_before: bool) -> str | None:
        """Return the warning that is due now, or None. `unconfirmed` are the pushes sent under this join, oldest first.

        `confirmed_before` is True if a push with the event of the oldest was ever confirmed.
        """
        timeout_s = self._settings.push_timeout_s
        age = now - unconfirmed[0].sent_at if unconfirmed else 0.0
        if now < self._next:
            return None
        if age < timeout_s:
            waited, self._pause_s = self._pause_s, 0.0
            return f"{self._settings.topic} confirms pushes again" if waited else None
        self._pause_s = max(timeout_s, min(2 * self._pause_s, _LONGEST_PAUSE_S))
        self._next = now + self._pause_s
        oldest = unconfirmed[0]
        return f"{self._what(oldest, len(unconfirmed), age)}; {self._advice(oldest, confirmed_before=confirmed_before)}"

    def no_confirmation(self, event: str, fault: BaseException | None) -> str:
        """Return the warning that the mode auto confirms `event` by heartbeats from now on.

        `fault` is the error of joining the public topics: then nobody knows of broadcasts.
        """
        unheard = f" (not heard: {fault.what})" if isinstance(fault, InfertoolError) else ""
        return (
            f"{self._settings.topic} answers {event} neither with a reply nor with a broadcast on {self._public()}"
            f"{unheard}; "
            "confirming by heartbeats, which show only that the server read it (phoenix.confirm chooses another way)"
        )

    def _public(self) -> str:
        return " or ".join(dict.fromkeys([self._settings.result_topic, self._settings.alert_topic]))

    def _what(self, oldest: Entry[Any], count: int, age: float) -> str:
        mode = self._settings.confirm
        return (
            f"no confirmation from {self._settings.topic} for {count} pushes (phoenix.confirm = {mode}): "
            f"the oldest, {oldest.push}, was pushed {age:.0f} s ago"
        )

    def _advice(self, oldest: Entry[Any], *, confirmed_before: bool) -> str:
        event, mode = oldest.push.event, self._settings.confirm
        if confirmed_before:
            return (
                "the channel answered earlier pushes: it is slow or blocked, or it ignored this one; see its log. "
                "Pushes are kept, and not repeated while the channel answers nothing"
            )
        if event == BATCH_EVENT:
            return "a batch needs a reply or a broadcast: now each result in it is pushed alone (publish.batch)"
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
