"""Hooks that a model may have set to None: Python refuses to make a thread then."""

from __future__ import annotations

import sys
import threading


def restore() -> None:
    """Set the hooks to Python's own where they are None. Call it before a new thread is made."""
    hooks: tuple[object, object] = threading.excepthook, sys.excepthook
    if hooks[0] is None:
        threading.excepthook = threading.__excepthook__
    if hooks[1] is None:
        sys.excepthook = sys.__excepthook__
