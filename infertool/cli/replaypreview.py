"""What a replay would do, shown before it does anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from infertool.brokers.port import Browse
from infertool.cli import lettertable
from infertool.cli.deadletters import when
from infertool.deadletter import summary
from infertool.deadletter.decide import Decider, Decision, Fate, Plan

_FIELDS = ("stage", "error_type")


@dataclass(frozen=True, slots=True)
class Preview:
    """What browsing showed, and what the plan makes of it."""

    plan: Plan
    browse: Browse
    decisions: Sequence[Decision]

    @property
    def replays(self) -> list[Decision]:
        """Letters that would be replayed."""
        return [each for each in self.decisions if each.fate is Fate.REPLAY]

    @property
    def nothing_matches(self) -> bool:
        """Whether it is proved that there is nothing to do."""
        touched = any(each.fate in {Fate.REPLAY, Fate.PARK} for each in self.decisions)
        return self.browse.complete and not touched

    def lines(self) -> list[str]:
        """Return it for people."""
        replays = self.replays
        lines = [self._depth_line(), self._match_line(len(replays))]
        lines += [f"  to {target}: {count}" for target, count in self._targets(replays).most_common()]
        lines += [f"  stay: {count}, {why}" for why, count in self._reasons().most_common()]
        if replays:
            letters = [each.letter for each in replays]
            died = [letter.failed_at for letter in letters if letter.failed_at is not None]
            if died:
                lines.append(f"  oldest {when(min(died))}, newest {when(max(died))}")
            lines += lettertable.grouped(summary.group(letters, _FIELDS), _FIELDS)
        return lines

    def _depth_line(self) -> str:
        depth = self.browse.depth
        return f"{self.plan.queue}: {'an unknown number of' if depth is None else depth} messages"

    def _match_line(self, count: int) -> str:
        seen = len(self.browse.messages)
        limit = "" if self.plan.limit is None else f", of which at most {self.plan.limit} are replayed"
        if self.browse.complete:
            return f"{count} match{limit}"
        return f"{count} match of the first {seen}; browsing sees no more, the replay goes through all{limit}"

    def _targets(self, replays: Sequence[Decision]) -> Counter[str]:
        return Counter(each.replacement.destination for each in replays)

    def _reasons(self) -> Counter[str]:
        return Counter(each.why for each in self.decisions if each.fate in {Fate.KEEP, Fate.HOLD, Fate.PARK})


def preview(plan: Plan, browse: Browse) -> Preview:
    """Return what `plan` would do with what was seen."""
    decider = Decider(plan)
    return Preview(plan, browse, [decider.decide(message) for message in browse.messages])
