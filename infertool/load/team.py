"""Load from several processes, for rates that one interpreter cannot reach. They count; this process adds up.

A process that dies does not end the others: events it did not report count as unsent, and its death is in `WorkEnd`.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Final

from infertool.errors import InfertoolError
from infertool.load.options import LoadOptions
from infertool.load.tally import BySecond, Measure, Meter, RunClock, Tally
from infertool.load.work import Share, WorkEnd
from infertool.net.connection_state import ConnectionEvent, OnConnection
from infertool.settings.broker import BrokerSettings
from infertool.telemetry.latencies import Latencies
from infertool.workers.process import ConnectedProcess, end_all

# Longest time for a process to connect, and for all to end. Seconds.
_START_S: Final = 60.0
_STOP_S: Final = 15.0
# Sent by a process once all its connections are there.
CONNECTED: Final = "connected"


@dataclass(frozen=True, slots=True)
class Counted:
    """Sent by a process: its counts since the last report, by second, with its times encoded."""

    warm: BySecond
    counted: BySecond
    times: Mapping[tuple[int, Measure], str]


@dataclass(frozen=True, slots=True)
class StartFailed:
    """Sent by a process that could not connect."""

    text: str


@dataclass(slots=True)
class _Member:
    """One of the processes, and the sums that it reported: of the warm-up (True) and of the rest (False)."""

    share: Share
    process: ConnectedProcess
    connection: Connection
    reported: dict[bool, Counter[str]] = field(default_factory=lambda: {True: Counter(), False: Counter()})
    end: WorkEnd | None = None
    death: str = ""


class Team:
    """Has the methods of `Work`, with the connections in other processes.

    `on_death` is called when one of them dies.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        options: LoadOptions,
        tally: Tally,
        meter: Meter,
        *,
        on_connection: OnConnection,
        on_death: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._options = options
        self._tally = tally
        self._meter = meter
        self._on_connection = on_connection
        self._on_death = on_death
        self._members: list[_Member] = []
        self._sending = threading.Lock()
        self._running = False
        self._stopped_s = math.inf
        self._begin = 0.0

    def connect(self) -> None:
        """Start all processes and wait until each is connected. Raises InfertoolError."""
        for index in range(self._options.processes):
            process = ConnectedProcess("infertool.load.process")
            connection = Connection(process.socket.detach())
            share = Share(index, self._options.processes)
            self._members.append(_Member(share, process, connection))
            with contextlib.suppress(OSError):  # it has died at once; reading shows that
                connection.send((self._settings, self._options, share))
        for member in self._members:
            self._await_connected(member.connection)

    def _await_connected(self, connection: Connection) -> None:
        try:
            if not connection.poll(_START_S):
                raise InfertoolError(f"a load process did not connect within {_START_S:g} s")
            while isinstance(answer := connection.recv(), ConnectionEvent):
                self._on_connection(answer)
        except (EOFError, OSError):
            raise InfertoolError("a load process ended before it was connected") from None
        if isinstance(answer, StartFailed):
            raise InfertoolError(f"a load process cannot start: {answer.text}")

    def run(self, run_clock: RunClock) -> None:
        """Send from all processes until the plan is over or `stop` is called."""
        with self._sending:
            if self._stopped_s < math.inf:
                return
            self._running = True
            self._begin = run_clock.mono
            self._send(run_clock)
        readers = [threading.Thread(target=self._follow, args=(member,), daemon=True) for member in self._members]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        for member in self._members:
            if member.death:
                self._count_unreported(member)

    def _send(self, message: object) -> None:
        for member in self._members:
            with contextlib.suppress(OSError):
                member.connection.send(message)

    def _follow(self, member: _Member) -> None:
        try:
            while True:
                match member.connection.recv():
                    case Counted() as counts:
                        self._add(member, counts)
                    case ConnectionEvent() as event:
                        self._on_connection(event)
                    case WorkEnd() as end:
                        member.end = end
                        how = "".join(end.deaths)
                        break
        except (EOFError, OSError):
            if not member.process.wait_end(_STOP_S):
                member.process.kill()
            how = _death(member.process.exit_code())
        if how:
            member.death = f"load process {member.share.index + 1} of {member.share.of} {how}"
            self._on_death(member.death)

    def _add(self, member: _Member, counts: Counted) -> None:
        for warm, seconds in ((True, counts.warm), (False, counts.counted)):
            self._tally.merge(seconds, warm=warm)
            for each in seconds.values():
                member.reported[warm].update(each)
        for (second, measure), text in counts.times.items():
            self._meter.merge(second, measure, Latencies.decode(text))

    def _count_unreported(self, member: _Member) -> None:
        """Count the events of a dead process that were due and not reported as unsent."""
        now_s = time.monotonic() - self._begin
        warmup_s = self._options.planned.warmup_s
        planned: Counter[int] = Counter()
        for _, due in member.share.of_all(self._options.schedule().times()):
            if due > min(now_s, self._stopped_s):
                break
            planned[math.floor(due - warmup_s)] += 1
        for warm, reported in member.reported.items():
            seconds = {second: count for second, count in sorted(planned.items()) if (second < 0) == warm}
            unsent = sum(seconds.values()) - reported["sent"] - reported["dropped"] - reported["unsent"]
            missing = sum(seconds.values()) - reported["planned"]
            for second, count in reversed(seconds.items()):
                taken = min(count, missing)
                self._tally.add(warm=warm, second=second, planned=taken)
                missing -= taken
            self._tally.add(warm=warm, unsent=unsent)
            if not warm:
                member.death += f"; {unsent} events of its share were not reported as sent, and count as unsent"

    def done(self, count: int) -> None:
        """Do nothing: a closed model has one process."""

    def stop(self) -> None:
        """End early, from any thread."""
        with self._sending:
            self._stopped_s = min(self._stopped_s, time.monotonic() - self._begin)
            if self._running:
                self._send("stop")

    def end(self) -> WorkEnd:
        """Return the end of the run: the latest end, the longest block, all refusals and deaths."""
        ends = [member.end for member in self._members if member.end]
        refusals: Counter[str] = Counter()
        drops: Counter[str] = Counter()
        statuses: Counter[str] = Counter()
        losses: Counter[str] = Counter()
        for end in ends:
            losses.update(end.losses)
            statuses.update(end.statuses)
            refusals.update(end.refusals)
            drops.update(end.drops)
        return WorkEnd(
            max((end.finished_s for end in ends), default=0.0),
            max((end.blocked_s for end in ends), default=0.0),
            sum(end.cpu_s for end in ends),
            dict(refusals),
            dict(drops),
            tuple(member.death for member in self._members if member.death),
            dict(statuses),
            dict(losses),
            next((end.fault for end in ends if end.fault), None),
        )

    def close(self) -> None:
        """End all processes."""
        for member in self._members:
            member.connection.close()
        end_all([member.process for member in self._members], _STOP_S)


def _death(code: int) -> str:
    return f"died (signal {-code})" if code < 0 else f"died (exit code {code})"
