"""Calls of others' code from the threads of an adapter."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TypeVar

_log = logging.getLogger(__name__)

T = TypeVar("T")

# Names of callbacks.
SEND: Final = "a callback of a confirmed send"
REPLIES: Final = "a callback of replies"
LISTENER: Final = "a listener of the broker connection"
SUBSCRIPTION: Final = "a subscription that lost its connection"


def tell(callback: Callable[[T], object], told: T, what: str) -> None:
    """Call `callback`; log what it raises. `what` names it.

    Others' code must neither end a connection nor keep answers from others.
    """
    try:
        callback(told)
    except Exception:  # noqa: BLE001  # see above
        _log.exception("%s raised", what)
