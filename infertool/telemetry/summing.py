"""Sums up repeated lines of a package that logs by itself, without signals, as `LogObserver` does for the consumer."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from infertool.telemetry.logs import Line, Repeats, log, shape, write


@contextmanager
def summed_up(package: str) -> Iterator[None]:
    """Sum up repeats among the log lines of `package`, a part of infertool; write the pending sums at the end."""
    logger, handler = logging.getLogger(package), _Summing()
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = True
        logger.removeHandler(handler)
        handler.close()


class _Summing(logging.Handler):
    """Passes lines on to infertool's own handler. Those with a trace, and all at level debug, are not summed up."""

    def __init__(self) -> None:
        super().__init__()
        self._repeats = Repeats(write)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line now, or count it for the next sum."""
        if record.exc_info or log.isEnabledFor(logging.DEBUG):
            log.handle(record)
            return
        text, group = record.getMessage(), "messages" if record.levelno < logging.WARNING else "warnings"
        self._repeats.add(Line(record.levelno, group, shape(text), text, {}))

    def close(self) -> None:
        """Write the pending sums."""
        self._repeats.close()
        super().close()
