"""Which group of consumers reads a topic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DEFAULT: Final = "infertool"
OPTION: Final = "group"
_REPLAY: Final = ".replay"
# A name is that of a group of one kind only.
_DEFAULT_SHARED: Final = "infertool.share"
_SHARED: Final = "kafka+share"


@dataclass(frozen=True, slots=True)
class Groups:
    """The group of `consumed` topics is `name`; that of every other topic, such as one of dead letters, is another.

    So a replay has its own place, where it goes on after an interruption. With `are_shared` the group of `consumed`
    topics is a share group.
    """

    name: str
    consumed: frozenset[str]
    are_shared: bool = False

    def of(self, topic: str) -> str:
        """Return the group that reads a topic."""
        return self.name if topic in self.consumed else f"{self.name}{_REPLAY}"

    def is_shared(self, topic: str) -> bool:
        """Return True if a share group reads the topic."""
        return self.are_shared and topic in self.consumed


def groups(scheme: str, name: str, consumed: frozenset[str]) -> Groups:
    """Return the groups for a URL's scheme, with the `name` that the URL gives, or that of infertool."""
    are_shared = scheme.startswith(_SHARED)
    return Groups(name or (_DEFAULT_SHARED if are_shared else DEFAULT), consumed, are_shared)
