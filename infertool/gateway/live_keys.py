"""The keys of a file as a running gateway sees them: changes count within a second, a broken file changes nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from infertool.gateway import off_loop
from infertool.gateway.key_file import KeyFile, KeyFileError, Signature
from infertool.gateway.keys import KeyRing

_log = logging.getLogger("infertool")

LOOK_S: Final = 1.0
_LONGEST_LOOK_S: Final = 2.0


class LiveKeys:
    """The newest keys that could be read. For one event loop."""

    def __init__(self, file: KeyFile, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raise `KeyFileError` if the file cannot be read at the start."""
        self._file = file
        self._clock = clock
        self._good = file.signature()
        self._bad: tuple[Signature, KeyFileError] | None = None
        self._ring = KeyRing(file.read())
        self._looked_at = clock()
        self._looking: asyncio.Future[KeyRing | None] | None = None
        self.fault = ""

    async def ring(self) -> KeyRing:
        """Return the keys, after a look at the file if the last was a second ago.

        The look is not on the event loop, and nobody waits long for a file system that hangs.
        """
        if self._clock() - self._looked_at >= LOOK_S:
            if self._looking is None:
                self._looking = off_loop.start(self._look, "gateway-keys")
                self._looking.add_done_callback(self._looked)
            done, _ = await asyncio.wait({self._looking}, timeout=_LONGEST_LOOK_S)
            if not done:
                self._looked_at = self._clock()
        return self._ring

    def _look(self) -> KeyRing | None:
        """Return the keys if the file was changed. Raises `KeyFileError`."""
        # Taken before the content: a change between the two is found by the next look.
        signature = self._file.signature()
        if signature == self._good:
            return None
        if self._bad and self._bad[0] == signature:
            raise self._bad[1]
        try:
            found = KeyRing(self._file.read())
        except KeyFileError as error:
            self._bad = signature, error
            raise
        self._good = signature
        return found

    def _looked(self, done: asyncio.Future[KeyRing | None]) -> None:
        self._looked_at = self._clock()
        self._looking = None
        if done.cancelled():
            return
        if (fault := done.exception()) is None:
            if (found := done.result()) is not None:
                self._ring = found
                _log.info("the keys file %s was read again: %d keys", self._file.path, len(found))
            self.fault = ""
            return
        what = fault.what if isinstance(fault, KeyFileError) else f"{type(fault).__name__}: {fault}"
        if what != self.fault:
            _log.warning("%s; the last keys that could be read hold", what)
        self.fault = what
