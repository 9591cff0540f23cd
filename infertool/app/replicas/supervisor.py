"""Several replicas under one supervisor: competing consumers with a joint stop and joint figures."""

from __future__ import annotations

import math
from dataclasses import replace
from multiprocessing.connection import wait
from typing import Final

from infertool.app.replicas.replica import Replica, StartFailedError
from infertool.consumer.consumer import Until
from infertool.consumer.processes.pool import LONG_START_S, SLOWER_STARTS
from infertool.errors import InfertoolError, NothingMatchedError, UnreachableError, UsageError
from infertool.settings import Settings
from infertool.telemetry.stats import Report, Snapshot, joint
from infertool.workers.process import end_all

# Longest wait for an event of a process before the supervisor looks at all of them. Seconds.
LOOK_S = 0.1


_MEMBER: Final = "group.instance.id"


def settings_of(settings: Settings, number: int) -> Settings:
    """Return the settings of the replica with this number. Static members of a group of Kafka need an id each."""
    single = replace(settings, consume=replace(settings.consume, processes=1))
    given = settings.broker.kafka
    if settings.consume.processes == 1 or _MEMBER not in given:
        return single
    return replace(single, broker=replace(settings.broker, kafka={**given, _MEMBER: f"{given[_MEMBER]}-{number}"}))


class Supervisor:
    """Runs `consume.processes` replicas until they end. `stop` is safe in a signal handler: it only sets a flag.

    Lines that replicas write to standard error are written to ours.
    """

    def __init__(self, settings: Settings, until: Until | None = None) -> None:
        numbers = range(1, settings.consume.processes + 1)
        self._replicas = [Replica(number, settings_of(settings, number), until or Until()) for number in numbers]
        self._stopping = False
        self._failure: InfertoolError | None = None

    def stop(self) -> None:
        """End every process gracefully."""
        self._stopping = True

    def run(self) -> None:
        """Run until every process has ended well or was stopped. Raises the error of one that could not start."""
        told = False
        try:
            while self._is_running():
                if not self._stopping:
                    self._start_due()
                elif not told:
                    told = True
                    self._terminate()
                wait([replica.process.pidfd for replica in self._replicas if replica.process], LOOK_S)
                self._attend()
        finally:
            end_all([replica.process for replica in self._replicas if replica.process], timeout_s=0)
        if self._failure:
            raise self._failure

    @property
    def stopping(self) -> bool:
        """True once `stop` was called."""
        return self._stopping

    def snapshot(self) -> Snapshot:
        """Return the joint figures now."""
        return joint(*self.reports())

    def reports(self) -> tuple[list[Report], list[Report]]:
        """Return the figures of all replicas, and those of the running processes."""
        reports = [replica.report for replica in self._replicas]
        latest = [replica.latest for replica in self._replicas]
        return [report for report in reports if report], [report for report in latest if report]

    def _is_running(self) -> bool:
        if any(replica.process for replica in self._replicas):
            return True
        return not self._stopping and any(replica.is_waiting() for replica in self._replicas)

    def _start_due(self) -> None:
        for replica in self._replicas:
            replica.start_if_due()

    def _terminate(self) -> None:
        for replica in self._replicas:
            if replica.process:
                replica.process.terminate()

    def _start_limit_s(self) -> float:
        """Return the longest time in which a process in another's place may load the model."""
        known = [replica.load_s for replica in self._replicas if replica.load_s]
        return max(LONG_START_S, SLOWER_STARTS * max(known)) if known else math.inf

    def _attend(self) -> None:
        for replica in self._replicas:
            replica.read()
        can_work = any(replica.was_ready for replica in self._replicas)
        limit_s = self._start_limit_s()
        for replica in self._replicas:
            replica.end_hanging(limit_s)
            try:
                replica.reap(stopping=self._stopping, can_work=can_work)
            except StartFailedError as failed:
                self._failure = self._failure or _error(failed)
                self._stopping = True


def _error(failed: StartFailedError) -> InfertoolError:
    """Return the error of a process as one of ours, with the same exit code."""
    match failed.exit_code:
        case UsageError.exit_code:
            return UsageError(failed.what)
        case UnreachableError.exit_code:
            return UnreachableError(failed.what, address="")
        case NothingMatchedError.exit_code:
            return NothingMatchedError(failed.what)
        case _:
            return InfertoolError(failed.what)
