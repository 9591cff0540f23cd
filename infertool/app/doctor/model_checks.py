"""Checks of the model, in a process of its own: it loads, warms up, and answers one event."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from functools import partial
from typing import Final

from infertool.app.doctor.check import Check
from infertool.app.doctor.model_process import STEPS, Step, Trial, decode_step, receive, send
from infertool.app.doctor.result import Finding, fail, ok, warn
from infertool.app.doctor.words import duration
from infertool.load.payloads import DOCUMENT
from infertool.secret import mask_url
from infertool.settings import Settings
from infertool.workers.process import ConnectedProcess

_LOAD_S: Final = 120.0
_MARGIN_S: Final = 5.0
_ADVICE: Final = "correct the model, or run `infertool consume --debug` for the trace"


class ModelChecks:
    """Makes the checks, and holds the process, until `close`. `sample` is an event as JSON, None for a built-in one."""

    def __init__(self, settings: Settings, sample: bytes | None) -> None:
        self._settings = settings
        self._sample = sample
        self._process: ConnectedProcess | None = None

    def checks(self, load: Check) -> list[Check]:
        """Return the checks, each of which needs the one before it."""
        call_s = self._settings.consume.timeout_s + _MARGIN_S
        checks: list[Check] = []
        before = load
        for name, limit_s in zip(STEPS, (_LOAD_S, _LOAD_S, call_s), strict=True):
            before = Check(name=name, run=partial(self._next, name, limit_s), needs=(before,), timeout_s=limit_s)
            checks.append(before)
        return checks

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process:
            process.discard()

    def _next(self, name: str, limit_s: float) -> Finding:
        process = self._process or self._start()
        while True:
            message = receive(process.socket) if process.wait(limit_s) else None
            if message is None:
                return fail(f"no end within {limit_s:g} s", "see what the model waits for: it is called in one thread")
            if not message:
                return fail(f"the model's process {process.ending()}", _ADVICE)
            step = decode_step(message)
            if step.name == name:
                return self._finding(step)

    def _start(self) -> ConnectedProcess:
        process = ConnectedProcess(
            "infertool.app.doctor.model_process", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._process = process
        model = self._settings.model
        send(process.socket, Trial(replace(model, token=model.token.fixed()), self._sample or DOCUMENT))
        return process

    def _finding(self, step: Step) -> Finding:
        if not step.error:
            spec = mask_url(self._settings.model.spec) if "://" in self._settings.model.spec else step.text
            value = {STEPS[0]: f"{spec} in ", STEPS[1]: "in ", STEPS[2]: f"{step.text} in "}[step.name]
            return ok(f"{value}{duration(step.took_s)}", step.took_s, "seconds")
        if step.name == STEPS[2] and self._sample is None:
            hint = "if the model needs other fields than the built-in event has, give one: --sample @event.json"
            return warn(f"the built-in event failed: {step.error}", hint, step.took_s, "seconds")
        return fail(step.error, step.advice or _ADVICE, step.took_s, "seconds")
