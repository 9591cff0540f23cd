"""What results have shown of a model: its versions, and the outputs that nothing else describes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final

_MOST_VERSIONS: Final = 8


class Seen:
    """Thread-safe. Empty until the first result."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # The newest last.
        self._versions: dict[str, None] = {}
        self._outputs: dict[str, dict[str, Any]] = {}

    @property
    def versions(self) -> list[str]:
        """The versions that have answered, the one that answered last at the end."""
        return list(self._versions)

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """The outputs as metadata has them: -1 is a size that varies."""
        return list(self._outputs.values())

    def note(self, version: str, outputs: Sequence[dict[str, Any]], *, batch_axis: bool, are_all: bool) -> None:
        """Note an answer. `are_all`: its caller did not choose among the outputs."""
        with self._lock:
            self._note(version, outputs, batch_axis=batch_axis, are_all=are_all)

    def _note(self, version: str, outputs: Sequence[dict[str, Any]], *, batch_axis: bool, are_all: bool) -> None:
        if version and next(reversed(self._versions), None) != version:
            self._versions.pop(version, None)
            self._versions[version] = None
            if len(self._versions) > _MOST_VERSIONS:
                del self._versions[next(iter(self._versions))]
        before = self._outputs
        if are_all:
            self._outputs = {}
        for each in outputs:
            shape = [-1, *each["shape"][1:]] if batch_axis else list(each["shape"])
            known = before.get(each["name"])
            if known and known["datatype"] == each["datatype"] and len(known["shape"]) == len(shape):
                shape = [old if old == new else -1 for old, new in zip(known["shape"], shape, strict=True)]
            self._outputs[each["name"]] = {"name": each["name"], "datatype": each["datatype"], "shape": shape}
