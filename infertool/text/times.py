"""Wall-clock times as text."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

# Texts of the last few times, since the events of a batch share theirs: a look-up takes a third of that of `lru_cache`.
_texts: Final[dict[float, str]] = {}
_MOST_TEXTS: Final = 8


def iso(seconds: float) -> str:
    """Return a Unix time as ISO 8601 in UTC, to the millisecond."""
    text = _texts.get(seconds)
    if text is None:
        text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if len(_texts) >= _MOST_TEXTS:
            _texts.clear()
        _texts[seconds] = text
    return text
