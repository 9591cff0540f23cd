"""The GPUs of worker processes: each process sees one, and keeps its number when it is replaced."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from infertool.errors import SettingsError
from infertool.settings.load import DEVICE
from infertool.settings.tree import ConsumeSettings

# CUDA and ROCm show a process the GPUs that it names, numbered from 0.
VISIBLE: Final = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU as `consume.devices` names it, and as the driver does; a process without one inherits what is visible."""

    name: str = ""
    visible: str = ""

    def environment(self) -> Mapping[str, str] | None:
        """Return the environment of a process that is to see this device alone; None for our own."""
        return {**os.environ, VISIBLE: self.visible, DEVICE: self.name} if self.name else None


NO_DEVICE: Final = Device()


def names(consume: ConsumeSettings) -> list[str]:
    """Return the devices in `consume.devices`."""
    return [name.strip() for name in consume.devices.split(",")] if consume.devices else []


def assigned(consume: ConsumeSettings, count: int, environ: Mapping[str, str]) -> Sequence[Device]:
    """Return the device of each of `count` worker processes, in turn. Raises `SettingsError`.

    Where `environ` limits the visible devices, a number counts among those.
    """
    found = [Device(name, _visible(name, environ.get(VISIBLE))) for name in names(consume)]
    if len(found) > count:
        raise _refused(
            f"consume.devices names {len(found)} devices for {count} worker processes", "set --workers to at least that"
        )
    return [found[number % len(found)] for number in range(count)] if found else [NO_DEVICE] * count


def _visible(name: str, limited_to: str | None) -> str:
    if limited_to is None or not name.isdecimal():
        return name
    # The driver ignores what follows a device that does not exist; an empty text shows none.
    seen = list(takewhile(lambda each: each not in {"", "-1"}, map(str.strip, limited_to.split(","))))
    if int(name) < len(seen):
        return seen[int(name)]
    raise _refused(
        f"consume.devices names device {name}, and {VISIBLE} shows {len(seen)}",
        f"they are numbered from 0; see {VISIBLE}",
    )


def _refused(what: str, advice: str) -> SettingsError:
    return SettingsError(what, key="consume.devices", advice=advice)
