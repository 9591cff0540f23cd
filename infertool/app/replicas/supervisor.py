"""Several consumer processes under one supervisor: competing consumers with a joint status, stop and summary."""

from __future__ import annotations

from dataclasses import replace
from multiprocessing.connection import wait

from infertool.app.consumer import STOPPING, print_summary
from infertool.app.replicas.replica import Replica, StartFailedError
from infertool.cli.common import console
from infertool.cli.common.signals import stopped_by_signals
from infertool.cli.consume import view as starting
from infertool.cli.consume import view as status
from infertool.consumer.consumer import Until
from infertool.errors import InfertoolError, NothingMatchedError, UnreachableError, UsageError
from infertool.settings import Settings
from infertool.telemetry import logs
from infertool.telemetry.stats import Snapshot, joint

# How often the supervisor looks up without news from a process, in seconds.
LOOK_S = 0.1


def run(settings: Settings, until: Until, *, as_json: bool, quiet: bool) -> None:
    """Run `consume.processes` consumers until they end, then print their joint summary. Raises what ends it early."""
    logs.set_up(settings.telemetry.log_level, settings.telemetry.log_format)
    starting.log_start(settings, until.max_messages)
    team = Team(settings, until)
    with (
        stopped_by_signals(team.stop, STOPPING),
        status.shown(team, settings.telemetry.status_interval_s, quiet=quiet),
    ):
        team.run()
    print_summary(team.snapshot(), as_json=as_json, to=console.out)


class Team:
    """All places. `stop` may be called from a signal handler: it only sets a flag."""

    def __init__(self, settings: Settings, until: Until) -> None:
        alone = replace(settings, consume=replace(settings.consume, processes=1))
        self._replicas = [Replica(number + 1, alone, until) for number in range(settings.consume.processes)]
        self._stopping = False
        self._failure: InfertoolError | None = None

    def stop(self) -> None:
        """Have every process end gracefully."""
        self._stopping = True

    def run(self) -> None:
        """Run until every process has ended well or was stopped. Raises what ended one at its start."""
        told = False
        try:
            while self._is_going_on():
                if not self._stopping:
                    self._start_due()
                elif not told:
                    told = True
                    self._tell_to_stop()
                wait([replica.process.pidfd for replica in self._replicas if replica.process], LOOK_S)
                self._attend()
        finally:
            for replica in self._replicas:
                if replica.process:
                    replica.process.discard()
        if self._failure:
            raise self._failure

    def snapshot(self) -> Snapshot:
        """Return the joint figures now."""
        reports = [replica.report for replica in self._replicas if replica.report]
        return joint(reports, [replica.latest for replica in self._replicas if replica.latest])

    def _is_going_on(self) -> bool:
        if any(replica.process for replica in self._replicas):
            return True
        return not self._stopping and any(replica.is_waiting() for replica in self._replicas)

    def _start_due(self) -> None:
        for replica in self._replicas:
            replica.start_if_due()

    def _tell_to_stop(self) -> None:
        for replica in self._replicas:
            if replica.process:
                replica.process.terminate()

    def _attend(self) -> None:
        for replica in self._replicas:
            replica.listen()
        can_work = any(replica.was_ready for replica in self._replicas)
        for replica in self._replicas:
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
