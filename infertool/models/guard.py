"""Turns whatever a model's own code raises while it is loaded into a `ModelLoadError`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from infertool.errors import ModelLoadError

_LONGEST_REASON = 500


@contextmanager
def guarded(what: str, spec: str, advice: str) -> Iterator[None]:
    """Raise `ModelLoadError` for any exception inside, `SystemExit` too; only Ctrl-C passes."""
    try:
        yield
    except (ModelLoadError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a model's code may raise anything, and none of it may end the program
        raise ModelLoadError(f"model {spec} {what}: {_reason(error)}", spec=spec, advice=advice) from error


def text_of(error: BaseException) -> str:
    """Return what an exception of a model says; the name of its type when it says nothing, or cannot."""
    try:
        return str(error) or type(error).__name__
    except Exception:  # noqa: BLE001  (its own __str__ may raise anything, too)
        return type(error).__name__


def _reason(error: BaseException) -> str:
    text = " ".join(text_of(error).split())
    cut = f"{text[:_LONGEST_REASON]}..." if len(text) > _LONGEST_REASON else text
    return f"{type(error).__name__}: {cut}".rstrip(": ")
