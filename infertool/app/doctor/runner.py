"""Runs checks, each with a time-out, so that a server or model that hangs never hangs the whole."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from infertool.app.doctor.check import NAMES, Check
from infertool.app.doctor.result import Finding, Result, Status, fail, failed, skip
from infertool.errors import InfertoolError
from infertool.text.sanitize import printable

_log = logging.getLogger(__name__)

# Time between two looks whether to stop. Seconds. The thread that waits is the main one: Python runs the handler of a
# signal that came just before a wait only after it.
_LOOK_S: Final = 0.1

OnCheck = Callable[[Check], None]
_ORDER = {name: number for number, name in enumerate(NAMES)}


class Runner:
    """Runs checks one after the other. `stop` ends it from another thread, without waiting for a check that hangs."""

    def __init__(self, on_check: OnCheck) -> None:
        self._on_check = on_check
        self._changed = threading.Condition()
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """True after `stop`."""
        return self._stopped

    def stop(self) -> None:
        """Have `run` return soon, with what was found so far."""
        self._stopped = True

    def wait(self, timeout_s: float) -> bool:
        """Wait; return True once stopped."""
        self._wait_for(lambda: self._stopped, timeout_s)
        return self._stopped

    def run(self, checks: Sequence[Check]) -> list[Result]:
        """Return a result for each check, in the order of `NAMES`."""
        results: dict[int, Result] = {}
        # Checks that others must not be run without: they failed, or were not run for the same reason.
        blocking: dict[int, str] = {}
        for check in checks:
            if self._stopped:
                break
            began = time.monotonic()
            reason = _blocked(check, blocking)
            if reason:
                finding = Finding(status=Status.SKIP, value=f"not checked: {reason}", blocked_by=reason)
                blocking[id(check)] = reason
            else:
                self._on_check(check)
                finding = self._within_time(check)
                if finding.status is Status.FAIL:
                    blocking[id(check)] = f"{' '.join(filter(None, (check.name, check.subject)))} failed"
            took_s = time.monotonic() - began
            subject = printable(check.subject)
            results[id(check)] = Result(name=check.name, subject=subject, finding=_printable(finding), took_s=took_s)
        return sorted(results.values(), key=lambda result: _ORDER[result.name])

    def _within_time(self, check: Check) -> Finding:
        found: list[Finding] = []

        def work() -> None:
            finding = _run(check)
            with self._changed:
                found.append(finding)
                self._changed.notify_all()

        threading.Thread(target=work, name=f"doctor-{check.name}", daemon=True).start()
        self._wait_for(lambda: bool(found) or self._stopped, check.timeout_s)
        if found:
            return found[0]
        if self._stopped:
            return skip("interrupted")
        return fail(f"no end after {check.timeout_s:g} s", "look at what hangs there, and run doctor again")

    def _wait_for(self, condition: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not condition() and (left_s := deadline - time.monotonic()) > 0:
                self._changed.wait(min(left_s, _LOOK_S))


def _printable(finding: Finding) -> Finding:
    """Return `finding` with texts that every form of the output can encode: names of files may be any bytes."""
    return replace(
        finding,
        value=printable(finding.value), hint=printable(finding.hint), blocked_by=printable(finding.blocked_by),
    )  # fmt: skip


def _blocked(check: Check, blocking: Mapping[int, str]) -> str:
    """Return why a check makes no sense; empty if it does."""
    reasons = [blocking[id(need)] for need in check.needs if id(need) in blocking]
    any_of = [blocking.get(id(need), "") for need in check.needs_any]
    return next(iter(reasons), "") or (any_of[0] if any_of and all(any_of) else "")


def _run(check: Check) -> Finding:
    try:
        return check.run()
    except InfertoolError as error:
        _log.debug("check %s failed", check.name, exc_info=True)
        return failed(error)
    except Exception as error:  # noqa: BLE001  (one check that is wrong must not hide all others)
        _log.debug("check %s raised", check.name, exc_info=True)
        return fail(f"the check itself failed: {type(error).__name__}: {error}", "run with --debug, and report this")
