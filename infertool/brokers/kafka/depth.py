"""How much of a topic a group has not settled, and how old that is."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from infertool.brokers.kafka import standing
from infertool.brokers.kafka.browse import part
from infertool.brokers.kafka.reader import Reader
from infertool.brokers.kafka.session import Session
from infertool.brokers.kafka.standing import Standing
from infertool.brokers.partitioned import Lag
from infertool.brokers.port import Depth

_MOST_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _First:
    """The first message of a partition that is not settled, from `start` on; before `offset` there is none.

    Where none was found before `end`, `offset` is `end`, and it may be that one comes.
    """

    start: int
    end: int
    offset: int
    stamp_ms: int | None

    @property
    def is_there(self) -> bool:
        return self.offset < self.end


class Lags:
    """Measures topics. The first messages that are not settled are read for their times; a consumer is kept for that.

    The consumer is made anew with each session. It, and what was found, is for one thread at a time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers: dict[str, Reader] = {}
        # By topic and partition: it is asked for again while nothing moves.
        self._first: dict[tuple[str, int], _First] = {}

    def close(self) -> None:
        """Disconnect."""
        with self._lock:
            for reader in self._readers.values():
                reader.close()
            self._readers.clear()

    def depth(self, session: Session, topic: str, group: str, count: int, timeout_s: float) -> Depth:
        """Return what `group` has not settled. Raises RefusedError, ConnectionLostError."""
        standings = self._standings(session, topic, group, count, timeout_s)
        size, sent = sum(each.unsettled for each in standings), sum(each.end for each in standings)
        return Depth(
            size=size,
            consumers=standing.members(session, topic, group, timeout_s),
            enqueued=sent,
            dequeued=sent - size,
        )

    def lag(self, session: Session, topic: str, group: str, count: int, timeout_s: float) -> Lag:
        """Return how far `group` is behind. Raises RefusedError, ConnectionLostError."""
        standings = self._standings(session, topic, group, count, timeout_s)
        oldest_ms = self._oldest(topic, standings)
        return Lag(
            messages=sum(each.unsettled for each in standings),
            # Clocks differ.
            seconds=None if oldest_ms is None else max(0.0, time.time() - oldest_ms / 1000),
            lost=sum(each.lost for each in standings),
            gap=max((each.gap for each in standings), default=0),
        )

    def oldest_ms(self, session: Session, topic: str, group: str, count: int, timeout_s: float) -> int | None:
        """Return the time of the oldest message that is not settled. Raises RefusedError, ConnectionLostError."""
        return self._oldest(topic, self._standings(session, topic, group, count, timeout_s))

    def _oldest(self, topic: str, standings: Sequence[Standing]) -> int | None:
        stamps = [self._first[topic, each.partition].stamp_ms for each in standings if each.unsettled]
        return min((stamp for stamp in stamps if stamp is not None), default=None)

    def _standings(self, session: Session, topic: str, group: str, count: int, timeout_s: float) -> list[Standing]:
        """Return the standings, which know of gaps before the first message: of compaction, and of transactions."""
        with self._lock:
            reader = self._reader(session, group)
            found = standing.of(reader, topic, count, timeout_s)
            unknown = [each for each in found if each.unsettled and not self._knows(topic, each)]
            if unknown:
                self._read(reader, topic, unknown, timeout_s)
            return [self._with_gaps(topic, each) if each.unsettled else each for each in found]

    def _knows(self, topic: str, each: Standing) -> bool:
        first = self._first.get((topic, each.partition))
        return first is not None and first.start == each.start and (first.is_there or first.end == each.end)

    def _with_gaps(self, topic: str, each: Standing) -> Standing:
        return replace(each, gaps=each.unsettled_before(self._first[topic, each.partition].offset))

    def _reader(self, session: Session, group: str) -> Reader:
        reader = self._readers.get(group)
        if reader is None or reader.session is not session:
            if reader:
                reader.close()
            reader = self._readers[group] = Reader(session, group)
        return reader

    def _read(self, reader: Reader, topic: str, unknown: Sequence[Standing], timeout_s: float) -> None:
        parts = {each.partition: part(each) for each in unknown}
        found = reader.read(topic, parts, most=1, most_bytes=_MOST_BYTES, timeout_s=timeout_s)
        for each in unknown:
            records = found.records[each.partition]
            how, stamp = records[0].timestamp() if records else (0, 0)
            # What did not come in time may be there.
            offset = each.end if each.partition in found.ended else each.start
            self._first[topic, each.partition] = _First(
                start=each.start,
                end=each.end,
                offset=records[0].offset() if records else offset,
                # A producer may give no time: -1.
                stamp_ms=stamp if how and stamp > 0 else None,
            )
