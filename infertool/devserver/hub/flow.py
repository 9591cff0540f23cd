"""Who holds the publishers back: an operator, or viewers that cannot follow. Either alone keeps the pause.

An operator's pause is for those who have joined when it is said, as a consumer's next join ends it; while viewers are
behind, those who join later are told, too.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infertool.devserver.hub.channels import Channel
    from infertool.devserver.hub.hub import Hub

_PUBLISHERS = "service:"

_log = logging.getLogger(__name__)


class Flow:
    """The pauses of a hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.overloaded = False

    def welcome(self, channel: Channel) -> None:
        """Tell a publisher that joins whether it has to wait."""
        if self.overloaded:
            channel.push("flow", {"state": "pause"})

    def say(self, topic: str, payload: object) -> None:
        """Take an operator's `flow` on `topic`, and pass it on. Raises `TypeError` as a broadcast does.

        A resume while viewers are behind comes into force when they have caught up.
        """
        state = payload.get("state") if isinstance(payload, dict) else None
        if state in {"pause", "resume"}:
            for channel in self._hub.channels(topic):
                channel.held = state == "pause"
        if state == "resume" and self.overloaded:
            _log.warning("%.100s stays paused until the viewers have caught up", topic)
        else:
            self._hub.broadcast(topic, "flow", payload)

    def overload(self) -> None:
        """Pause all publishers."""
        self.overloaded = True
        for channel in self._hub.channels(_PUBLISHERS, prefix=True):
            channel.push("flow", {"state": "pause"})

    def relieve(self) -> None:
        """Let go those publishers that no operator holds back."""
        self.overloaded = False
        for channel in self._hub.channels(_PUBLISHERS, prefix=True):
            if not channel.held:
                channel.push("flow", {"state": "resume"})
