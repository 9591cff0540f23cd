"""One run of `infertool peek-dlq`: browse a dead-letter queue and print letters or groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infertool.brokers.port import Broker, Browse
from infertool.cli.common import console, deadletters
from infertool.cli.common.deadletters import connected
from infertool.deadletters import letters, selection
from infertool.deadletters.letters import DeadLetter
from infertool.deadletters.replay import companions
from infertool.errors import NothingMatchedError
from infertool.settings import Settings

_TIMEOUT_S = 30.0
# Timeout of a measurement: the answer comes at once, or never for a queue that does not exist. Seconds.
_MEASURE_S = 0.2


class Peek:
    """One run of `infertool peek-dlq`."""

    def __init__(self, settings: Settings, queue: str, *, form: str, limit: int) -> None:
        self._settings = settings
        self._queue = queue
        self._form = form
        self._limit = limit

    def run(self, *, fields: Sequence[str] | None, wanted: str | None) -> None:
        """Print the letters, their groups, or one in full. Raises `NothingMatchedError` if there is none."""
        with connected(self._settings) as broker:
            if wanted is not None:
                self._show_one(selection.find(broker, self._queue, wanted, limit=self._limit, timeout_s=_TIMEOUT_S))
                return
            browse = broker.browse(self._queue, limit=self._limit, timeout_s=_TIMEOUT_S)
            self._report_staged(broker)
        if not browse.messages:
            raise NothingMatchedError(_nothing_shown(self._queue, browse))
        seen, doubles = letters.once([letters.read(message) for message in browse.messages])
        with console.reporting():
            if fields is None:
                self._show_all(seen, browse)
            else:
                self._show_groups(selection.group(seen, fields), fields, browse)
        if doubles:
            console.err(f"{self._queue}: {doubles} second copies of these letters (same dlq_id) are not shown")
        self._report_seen(browse)

    def _show_one(self, letter: DeadLetter) -> None:
        with console.reporting():
            if self._form == "table":
                console.out(*deadletters.details(letter))
            else:
                console.emit_json(deadletters.document(letter))

    def _show_all(self, seen: Sequence[DeadLetter], browse: Browse) -> None:
        if self._form == "table":
            console.out(*deadletters.letter_table(seen))
        else:
            self._emit("letters", [deadletters.document(letter) for letter in seen], browse)

    def _show_groups(self, groups: Sequence[selection.Group], fields: Sequence[str], browse: Browse) -> None:
        if self._form == "table":
            console.out(*deadletters.group_table(groups, fields))
        else:
            self._emit("groups", [deadletters.group_document(group, fields) for group in groups], browse)

    def _emit(self, name: str, documents: Sequence[dict[str, Any]], browse: Browse) -> None:
        if self._form == "jsonl":
            console.out_data(*map(deadletters.dump, documents))
            return
        seen = {"queue": self._queue, "depth": browse.depth, "seen": len(browse.messages), "complete": browse.complete}
        console.emit_json({**seen, "note": browse.note, name: documents})

    def _report_staged(self, broker: Broker) -> None:
        if broker.capabilities.log:
            return
        depth = broker.measure(companions.staging(self._queue), _MEASURE_S)
        if depth and depth.size:
            place = companions.staging(self._queue)
            console.err(f"{depth.size} more are in {place}: a replay works, or was killed; the next puts them back")

    def _report_seen(self, browse: Browse) -> None:
        count = len(browse.messages)
        if browse.note:
            console.err(f"{self._queue}: {browse.note}")
        if browse.complete:
            console.err(f"{self._queue}: these are all, {count}")
        elif browse.depth is None:
            console.err(f"{self._queue}: saw the first {count}; the broker does not tell how many there are")
        elif count >= self._limit:
            console.err(f"{self._queue}: saw the first {count} of {browse.depth}; --limit ends it there")
        elif count >= browse.depth:
            console.err(f"{self._queue}: saw all {count} that wait for a consumer")
        else:
            console.err(
                f"{self._queue}: saw the first {count} of {browse.depth}, the broker shows no more; "
                "replay-dlq and drain-dlq reach all of them"
            )


def _nothing_shown(queue: str, browse: Browse) -> str:
    """Return the message for a queue that showed no letters."""
    if browse.note:
        return f"{queue} shows no messages: {browse.note}"
    if browse.depth:
        return f"{queue} holds {browse.depth} messages, all in the hands of consumers; nothing can be shown"
    return f"{queue} is empty, or does not exist"
