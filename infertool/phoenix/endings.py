"""What people are told when a channel, or its connection, ended: over which push, who is to blame, what follows."""

from __future__ import annotations

from infertool.phoenix.membership import Loss
from infertool.phoenix.suspects import Cause, Finding

CRASHED = "channel crashed"
_SIZE_ADVICE = (
    "lower publish.max_bytes, or raise the server's limit (max_frame_size of its socket: 8 MB by default in Phoenix "
    "1.7, 10 MB in 1.8)"
)


def why(loss: Loss, reason: str) -> str:
    """Return what happened, with the server's reason if it gave one."""
    return f"{loss}: {reason}" if reason else str(loss)


def refusal(loss: Loss, reason: str, finding: Finding) -> str:
    """Return why a push is refused over which the channel ended."""
    if loss is Loss.TOO_LARGE:
        return f"{reason}: its {len(finding.suspect.push.payload)} bytes are more than the server takes; {_SIZE_ADVICE}"
    return reason or CRASHED


def described(topic: str, loss: Loss, reason: str, finding: Finding | None) -> str:
    """Return a line that says what happened on `topic`, at which push, and what follows."""
    text = f"{topic}: {why(loss, reason)}"
    if finding is None:
        return f"{text}; joining again"
    text = f"{text}; {_which(loss, finding)}; joining again"
    if loss is Loss.TOO_LARGE:
        text = f"{text}; {_SIZE_ADVICE}"
    return text


def _which(loss: Loss, finding: Finding) -> str:
    push, wait = finding.suspect.push, f"{finding.wait_s or 0:.0f} s"
    match finding.cause:
        case Cause.PUSH:
            return f"it ends over {push}, also alone, while other {push.event} pass: that one is refused"
        case Cause.PAYLOAD:
            return f"it ends over {push}, also alone: that one is pushed again without its payload"
        case Cause.BATCH:
            return f"unconfirmed first was {push}: it is taken apart"
        case Cause.EVENT:
            return (
                f"it ends over every {push.event}, now {push}, while other events pass: has the channel a clause for "
                f"it, and what does the server's log say? Pushes of {push.event} wait, the next try is in {wait}"
            )
        case Cause.SERVER:
            return (
                f"it ends over different pushes, now {push}, and takes none: the server seems at fault, not the events "
                f"(see its log). {push.event} waits, nothing is dead-lettered, the next try is in {wait}"
            )
    return _suspected(loss, finding)


def _suspected(loss: Loss, finding: Finding) -> str:
    place = "largest" if loss is Loss.TOO_LARGE else "first"
    alone = finding.lost == 1
    unconfirmed = "unconfirmed was" if alone else f"{place} of {finding.lost} unconfirmed pushes was"
    text = f"{unconfirmed} {finding.suspect.push}"
    if finding.wait_s is not None:
        text = f"{text}, and none of its kind has passed since the join: it waits for {finding.wait_s:.0f} s"
    return text
