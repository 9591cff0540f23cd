"""Messages whose frames cannot be read: left in their queue, so that they do not keep all others from us."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Final

_log = logging.getLogger(__name__)

# Once may be the line's fault.
_FAILURES: Final = 2


class Unreadable:
    """What could not be read of one queue, over connections. What failed `failures` times is left out."""

    def __init__(self, queue: str, failures: int = _FAILURES) -> None:
        self._queue = queue
        self._most = failures
        self._failures: Counter[str] = Counter()

    def note(self, message_id: str, reason: str) -> bool:
        """Note that a connection ended because of `reason` at the message `message_id`, which is empty for none.

        Return whether that one is left out from now on, and was not before.
        """
        if not message_id:
            return False
        self._failures[message_id] += 1
        is_new = self._failures[message_id] == self._most
        if is_new:
            _log.warning(
                "message %s in %s cannot be read (%s); it is left in the queue, and all others are taken: "
                "take it out with a JMS client", message_id, self._queue, reason,
                extra={"fields": {"message_id": message_id, "queue": self._queue}},
            )  # fmt: skip
        return is_new

    def selecting(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return SUBSCRIBE's `headers` with a selector for what is not left out."""
        out = [message_id for message_id, count in self._failures.items() if count >= self._most]
        if not out:
            return dict(headers)
        terms = [f"JMSMessageID <> '{message_id.replace(chr(39), 2 * chr(39))}'" for message_id in out]
        wanted = headers.get("selector", "")
        return {**headers, "selector": " AND ".join(([f"({wanted})"] if wanted else []) + terms)}
