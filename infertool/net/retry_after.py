"""The header Retry-After."""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime
from typing import Final

_SECONDS: Final = re.compile(r"\s*\d+\s*", re.ASCII)
# More than 31 years, and more than waits may take, are not meant.
_MOST_S: Final = 1e9


def seconds(text: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, a number or a date; None without a usable one."""
    if not text:
        return None
    asked = float(text) if _SECONDS.fullmatch(text) else _until(text)
    return None if asked is None else min(max(asked, 0.0), _MOST_S)


def _until(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
