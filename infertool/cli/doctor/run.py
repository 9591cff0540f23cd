"""One run of `infertool doctor`: rounds of checks, until nothing fails or the time is over."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from infertool.app.consumer import with_replies_alone
from infertool.app.doctor import bundle
from infertool.app.doctor.check import Check, Selection
from infertool.app.doctor.examination import Asked, Examination
from infertool.app.doctor.result import Result, Status, worst
from infertool.app.doctor.runner import Runner
from infertool.cli.common import console
from infertool.cli.common.signals import stopped_by_signals
from infertool.cli.doctor import view
from infertool.errors import SettingsError, UsageError
from infertool.settings.load import Loaded, anchored
from infertool.telemetry import logs
from infertool.text import json_text

_PAUSE_S: Final = 1.0
_NAGIOS: Final = "nagios"
_NAGIOS_CODES: Final = {Status.OK: 0, Status.WARN: 1, Status.FAIL: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for. `output` is the name of a form."""

    selection: Selection
    asked: Asked
    wait_s: float
    strict: bool
    output: str
    bundle: Path | None
    quiet: bool


def read_sample(text: str) -> bytes:
    """Return an event typed as JSON or @FILE. Raises `UsageError`."""
    try:
        body = Path(text[1:]).read_bytes() if text.startswith("@") else text.encode("utf-8", "surrogateescape")
        json_text.loads(body)
    except OSError as fault:
        raise UsageError(f"--sample {text} cannot be read: {fault.strerror}") from None
    except json_text.JsonError as error:
        raise UsageError(f"--sample is not JSON: {error}", advice="write an object, or @FILE with one") from None
    return body


def refuse_existing(path: Path) -> None:
    """Raise `UsageError` for a bundle that would overwrite a file, or cannot be written."""
    if path.exists():
        raise UsageError(f"{path} is there already", advice="name another file with --bundle")
    if not os.access(path.absolute().parent, os.W_OK):
        raise UsageError(f"{path} cannot be written: no folder {path.absolute().parent} to write into")


def run(loaded: Loaded | SettingsError, request: Request) -> None:
    """Check, show what was found, and exit with its code. Raises `UsageError` where nothing is left to check."""
    if isinstance(loaded, Loaded):
        loaded = replace(loaded, settings=anchored(with_replies_alone(loaded)))
        telemetry = loaded.settings.telemetry
        # What goes wrong is in the results; adapters warn of it, too.
        logs.set_up("debug" if telemetry.log_level == "debug" else "error", telemetry.log_format)
    runner = Runner(_Progress(shown=not request.quiet and sys.stderr.isatty()))
    with stopped_by_signals(runner.stop, ""):
        results, stats = _rounds(loaded, request, runner)
    if sys.stderr.isatty() and not request.quiet:
        console.progress("")
    with console.reporting():
        view.show(results, request.output)
    if request.bundle:
        written = bundle.write(request.bundle, loaded, results, os.environ, stats)
        console.err(f"wrote {written}: masked settings, versions, results; look into it before you send it")
    if runner.stopped:
        sys.exit(console.EXIT_INTERRUPTED)
    sys.exit(_code(results, request))


def _rounds(loaded: Loaded | SettingsError, request: Request, runner: Runner) -> tuple[list[Result], bytes | None]:
    """Return the results of the last round, and the stats document of a running consumer."""
    deadline = time.monotonic() + request.wait_s
    while True:
        examination = Examination(loaded, os.environ, request.asked)
        try:
            selected = request.selection.select(examination.checks)
            if not selected:
                raise UsageError("--only and --skip leave no check", advice="leave one of them out")
            results = runner.run(selected)
        finally:
            examination.close()
        failed = [result for result in results if _fails(result.status, request)]
        if not failed or runner.stopped or time.monotonic() >= deadline:
            return results, examination.consumer.document
        if not request.quiet:
            console.err(f"waiting: {view.summary_line(failed[0])}")
        if runner.wait(min(_PAUSE_S, max(0.0, deadline - time.monotonic()))):
            return results, examination.consumer.document


def _fails(status: Status, request: Request) -> bool:
    return status is Status.FAIL or (request.strict and status is Status.WARN)


def _code(results: list[Result], request: Request) -> int:
    status = worst(results)
    if request.output == _NAGIOS:
        return _NAGIOS_CODES[Status.FAIL if _fails(status, request) else status]
    return 1 if _fails(status, request) else 0


class _Progress:
    """Shows which check runs, on a terminal."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown

    def __call__(self, check: Check) -> None:
        if self._shown:
            console.progress(f"checking {check.name} {check.subject}".rstrip())
