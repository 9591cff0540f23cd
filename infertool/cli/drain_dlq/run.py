"""One run of `infertool drain-dlq`: ask, archive and remove dead letters, report the result."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from infertool.brokers.partitioned import Log
from infertool.brokers.port import Broker, Depth
from infertool.cli.common import console
from infertool.cli.common.deadletters import (
    bus,
    connected,
    exclusive,
    kept_note,
    look,
    report_loss,
    restore_staged,
    warn_of_skew,
)
from infertool.cli.common.signals import stopped_by_signals
from infertool.deadletters import letters, record
from infertool.deadletters.archive.writer import ArchiveWriter
from infertool.deadletters.replay.drain import WHY_LEFT, Drain, Progress
from infertool.deadletters.replay.take import Taker
from infertool.errors import InfertoolError, NothingMatchedError, UsageError
from infertool.settings import Settings

STOPPING = "stopping after this batch (Ctrl-C again leaves at once; nothing is lost)"
# Timeouts of the last measurement, in seconds: for a broker that answered the first one, which may have restarted
# since and need seconds for its first answer; and for a broker that did not answer.
_MEASURE_AGAIN_S, _MEASURE_S = 10.0, 1.0
_ASK_AGAIN_S = 0.1
_LOOK_S = 10.0
_LINE_EVERY_S = 2.0
_MOST_SHOWN = 1000


@dataclass(frozen=True, slots=True)
class Request:
    """The options of a drain. Without `file` it discards. `yes` is None (ask), "" (do not ask) or the queue's name.

    `delete_records`: what is settled is deleted from the log, too, where the queue is one.
    """

    queue: str
    file: Path | None
    yes: str | None
    delete_records: bool
    force: bool
    as_json: bool
    quiet: bool


def drain(settings: Settings, request: Request) -> None:
    """Drain the queue. Raises `NothingMatchedError` if it is empty, `UsageError` if there is no terminal to ask on."""
    stop = threading.Event()
    with connected(settings) as broker, exclusive(broker, request.queue, shared=request.force):
        log = broker if isinstance(broker, Log) else None
        if request.delete_records and log is None:
            raise UsageError(
                f"--delete-records: {broker.address} keeps no messages that are settled", advice="leave it out"
            )
        reach = bus(settings, report_loss)
        restore_staged(broker, reach, request.queue)
        if log and request.delete_records and _is_settled(broker, request.queue):
            _end_on_log(log, request)
            return
        depth, began = _look(broker, request.queue)
        _agree(request, depth, broker.conventions.short(request.queue))
        with _archive(request) as archive:
            work = Drain(archive, depth=depth, began=began, on_progress=_ProgressLines(request, depth))
            taker = Taker(reach, request.queue, stop=stop)
            with stopped_by_signals(stop.set, STOPPING), taker:
                _run(work, taker, request)
        if log:
            _end_on_log(log, request)
        after = _measure(broker, request.queue, _MEASURE_S if depth is None else _MEASURE_AGAIN_S)
    _sum_up(request, work.progress, after, interrupted=stop.is_set())
    if stop.is_set():
        sys.exit(console.EXIT_INTERRUPTED)


def _end_on_log(log: Log, request: Request) -> None:
    """Delete what is settled from the log if that was asked for, else say that it is still there."""
    if request.delete_records:
        count = log.delete_settled(request.queue, _LOOK_S)
        console.err(f"deleted {count} records of {request.queue}, up to its first unsettled ones")
    else:
        console.err(f"{kept_note(log, request.queue)}; --delete-records deletes them")


def _is_settled(broker: Broker, queue: str) -> bool:
    """Return True if nothing waits in `queue`, so that there is nothing to archive first."""
    depth = broker.measure(queue, _LOOK_S)
    return depth is not None and depth.size == 0


def _look(broker: Broker, queue: str) -> tuple[int | None, float]:
    """Return the depth, None if the broker does not report it, and the start of the drain by the letters' clock.

    Raises `NothingMatchedError`.
    """
    browse, is_empty = look(broker, queue, limit=1, timeout_s=_LOOK_S)
    if is_empty:
        raise NothingMatchedError(f"{queue} is empty, or does not exist")
    if browse.depth is not None:
        return browse.depth, time.time()  # the drain ends by this depth, not by a time
    browse, _ = look(broker, queue, limit=_MOST_SHOWN, timeout_s=_LOOK_S)
    began, ahead_s = record.start(time.time(), map(letters.read, browse.messages))
    warn_of_skew(0.0, ahead_s)
    return None, began


def _measure(broker: Broker, queue: str, timeout_s: float) -> Depth | None:
    """Measure until the broker answers: this connection may reconnect later than the draining one."""
    deadline = time.monotonic() + timeout_s
    while (left_s := deadline - time.monotonic()) > 0:
        depth = broker.measure(queue, left_s)
        if depth is not None:
            return depth
        time.sleep(_ASK_AGAIN_S)
    return None


def _agree(request: Request, depth: int | None, short: str) -> None:
    """Ask for agreement unless it was given. Raises `UsageError`."""
    count = "all" if depth is None else f"{depth}"
    if request.file and request.yes and request.yes not in {request.queue, short}:
        raise UsageError(f"--yes={request.yes} names another queue than {request.queue}", advice="write --yes")
    if request.file is None:
        _agree_to_discard(request, f"this deletes {count} messages of {request.queue} for ever", short)
    elif request.yes is None:
        question = f"archive {count} messages of {request.queue} in {request.file} and remove them? [y/N] "
        if console.ask(question, otherwise="--yes").lower() not in {"y", "yes"}:
            raise InfertoolError("nothing was done: not agreed")


def _agree_to_discard(request: Request, what: str, short: str) -> None:
    right = {request.queue, short}
    option = f"--yes={short}"
    if request.yes is not None:
        if request.yes not in right:
            raise UsageError(f"{what}; --yes must name the queue", advice=f"write {option}")
        return
    if console.ask(f"{what}; type the queue's name to agree: ", otherwise=option) not in right:
        raise InfertoolError("nothing was deleted: that is not the queue's name")


@contextmanager
def _archive(request: Request) -> Iterator[ArchiveWriter | None]:
    if request.file is None:
        yield None
        return
    with ArchiveWriter(request.file) as archive:
        if archive.cut_bytes:
            console.err(f"{request.file}: removed {archive.cut_bytes} bytes of a half-written last record")
        if archive.found:
            console.err(f"{request.file}: appending to {archive.found} messages")
        yield archive


def _run(work: Drain, taker: Taker, request: Request) -> None:
    try:
        work.run(taker)
    except InfertoolError:
        # Report the finished part before the error.
        progress = work.progress
        console.err(f"archived {progress.archived}, removed {progress.removed} from {request.queue} before this:")
        raise


class _ProgressLines:
    """Prints the progress from time to time."""

    def __init__(self, request: Request, depth: int | None) -> None:
        self._quiet = request.quiet
        self._all = "" if depth is None else f" of {depth}"
        self._said = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Print the progress if the last line is old enough."""
        now = time.monotonic()
        if not self._quiet and now - self._said > _LINE_EVERY_S:
            self._said = now
            console.err(f"{progress.removed}{self._all} removed")


def _sum_up(request: Request, progress: Progress, after: Depth | None, *, interrupted: bool) -> None:
    remaining = after.size if after else None
    if progress.left:
        console.err(f"{progress.left} stay in {request.queue}: each is {WHY_LEFT}")
    known = f" ({progress.known} were in it already)" if progress.known else ""
    kept = "deleted" if request.file is None else f"archived {progress.archived} in {request.file}{known}, removed"
    rest = "an unknown number remains" if remaining is None else f"{remaining} remain"
    sentence = f"{kept} {progress.removed} from {request.queue}; {rest}"
    with console.reporting(sentence):
        if request.as_json:
            place = {"queue": request.queue, "file": None if request.file is None else str(request.file)}
            console.emit_json({**place, **asdict(progress), "remaining": remaining, "interrupted": interrupted})
        else:
            console.out(sentence)
