"""What becomes of a letter on its way to another broker: names in the spelling of that, and what it cannot carry."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import chain

import msgspec

from infertool.brokers.headers import property_texts
from infertool.brokers.port import Capabilities, Conventions
from infertool.deadletters import marks
from infertool.deadletters.letters import DeadLetter
from infertool.errors import UsageError
from infertool.message import Outgoing

_ID_BYTES = 16
_ORIGIN = "original_destination"
# What ActiveMQ tells of a message without a priority.
_USUAL_PRIORITIES = frozenset({None, 4})


@dataclass(frozen=True, slots=True)
class Crossing:
    """From the broker that has, or once had, the letters to the one that gets them, and what that one `can` do.

    Of an archive it is not known where it came from: `here` is then the same as `there`, and `could` is None. Else that
    is what the broker can do that has the letters.
    """

    here: Conventions
    there: Conventions
    can: Capabilities
    could: Capabilities | None = None

    def queue(self, name: str) -> str:
        """Return a queue as the other broker spells it; `name` itself where that has no such name."""
        if self.there.is_queue(name) and self.here is self.there:
            return name
        try:
            return self.there.queue(self.here.short(name) if self.here.is_queue(name) else name)
        except UsageError:
            return name

    def translated(self, outgoing: Outgoing) -> Outgoing:
        """Return a replay with the names of queues in its properties and headers as the other broker spells them.

        An address for replies that does not last belongs to a connection to the broker that it comes from.
        """
        headers = dict(outgoing.headers)
        ours = marks.OWN + _ORIGIN if marks.OWN + _ORIGIN in headers else _ORIGIN
        if origin := headers.get(ours):
            headers[ours] = self.queue(origin)
        answers = outgoing.properties.reply_to
        properties = msgspec.structs.replace(outgoing.properties, reply_to=self._address(answers) if answers else None)
        return replace(outgoing, headers=headers, properties=properties)

    def _address(self, answers: str) -> str | None:
        if self.here is self.there and self.there.is_lasting(answers):
            return answers
        name = self.queue(answers)
        return name if self.there.is_queue(name) else None

    def fits(self, outgoing: Outgoing) -> bool:
        """Return True if the other broker takes this number of headers, each of this length."""
        texts = {**property_texts(outgoing.properties), **outgoing.headers}
        return len(texts) <= self.there.max_headers and all(self.there.fits(*pair) for pair in texts.items())

    def losses(self, letter: DeadLetter, sent: Outgoing) -> tuple[str, ...]:
        """Return what the other broker cannot carry of `sent`, the replay of `letter`. Of few different texts."""
        message = letter.message
        losses = [
            f"the type {tag} of the header {name}: it becomes a text"
            for name, tag in sent.types.items()
            if not (self.can.header_types and self.there.keeps_type(sent.headers[name], tag))
        ]
        losses += [
            f"the name of the header {aside.removeprefix(marks.KEPT)}: it becomes {aside}"
            for aside in sent.headers
            if aside.startswith(marks.KEPT) and aside.removeprefix(marks.KEPT) in message.native
        ]
        if message.properties.reply_to and not sent.properties.reply_to:
            losses.append("the address for replies: it belongs to a connection to the other broker")
        return (*losses, *self._priority(sent.properties.priority))

    def limits(self) -> tuple[str, ...]:
        """Return what letters may lose that nobody has seen yet."""
        could, can = self.could, self.can
        if could is None:
            return ()
        types = ("types of headers: they become texts",) if could.header_types and not can.header_types else ()
        highest = f"priorities above {can.highest_priority}: they become {can.highest_priority}"
        kept = "priorities: not every queue there keeps them"
        return (
            *types,
            *([highest] if could.highest_priority > can.highest_priority else []),
            *([kept] if could.priorities and not can.priorities else []),
        )

    def _priority(self, priority: int | None) -> tuple[str, ...]:
        if priority is not None and priority > self.can.highest_priority:
            return (f"the priority {priority}: it becomes {self.can.highest_priority}",)
        if self.can.priorities or priority in _USUAL_PRIORITIES:
            return ()
        return ("the priority: not every queue there keeps it",)


def replay_id(letter: DeadLetter) -> str:
    """Return the id of a letter's replay where no transaction reaches: the same if it is sent again after a fault.

    It is also the same after the letter has waited in staging, which changes its broker's id and its properties.
    """
    message = letter.message
    own, theirs = marks.ours(message.headers), marks.producers(message.headers)
    lasting = [(name, value) for name, value in own.items() if name not in marks.OF_STAGING]
    digest = blake2b(digest_size=_ID_BYTES)
    for text in (message.source, letter.original_id, message.kind, *chain(*sorted(lasting), *sorted(theirs.items()))):
        data = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data))
        digest.update(data)
    digest.update(message.body)
    return marks.MOVED + digest.hexdigest()
