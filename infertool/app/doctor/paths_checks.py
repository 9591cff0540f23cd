"""Checks of the state folder: can it be written, and has its disk room."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from infertool.app.doctor.check import Check
from infertool.app.doctor.result import Finding, fail, ok, warn
from infertool.app.doctor.words import size
from infertool.settings import Settings
from infertool.settings.load import state_dir
from infertool.telemetry.process_stats import existing
from infertool.text.input import home_path

_MIB: Final = 1024 * 1024
_LITTLE, _TOO_LITTLE = 1024 * _MIB, 100 * _MIB
_HINT: Final = "make room there, or set consume.state_dir to a folder on another disk"


def checks(settings: Settings, environ: Mapping[str, str], load: Check) -> list[Check]:
    """Return the checks."""
    given = settings.consume.state_dir
    folder = home_path(given).absolute() if given else state_dir(environ)
    return [
        Check(name="paths.state", run=partial(_state, folder), needs=(load,)),
        Check(name="paths.disk", run=partial(_disk, folder), needs=(load,)),
    ]


def _state(folder: Path) -> Finding:
    place = existing(folder)
    hint = "give this user the right to write there, or set consume.state_dir"
    if not place.is_dir():
        return fail(f"{folder} cannot be made: {place} is no folder", hint)
    if place != folder:
        if not os.access(place, os.W_OK | os.X_OK):
            return fail(f"{folder} cannot be made: {place} cannot be written", hint)
        return ok(f"{folder}, made at the first use")
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"infertool")
            file.flush()
    except OSError as fault:
        return fail(f"{folder} cannot be written: {fault.strerror}", hint)
    return ok(f"{folder}")


def _disk(folder: Path) -> Finding:
    try:
        usage = shutil.disk_usage(existing(folder))
    except OSError as fault:
        return fail(f"the disk of {folder} cannot be read: {fault.strerror}", _HINT)
    value = f"{size(usage.free)} free of {size(usage.total)} ({usage.free / max(1, usage.total):.0%})"
    found = fail if usage.free < _TOO_LITTLE else warn if usage.free < _LITTLE else None
    return found(value, _HINT, usage.free, "bytes") if found else ok(value, usage.free, "bytes")
