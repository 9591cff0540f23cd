"""Regular expressions from users, searched in untrusted text.

The engine is that of CEL's `matches`. Its time is linear in the text for any pattern, so `(a+)+$` is harmless. It has
no look-around and no back references.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from infertool.text.sanitize import printable

# Results kept by text: a queue holds few different errors, and the engine compiles the pattern for each search.
_KEPT = 4096
_REASON = re.compile(r"^error: (.*?)\.?(?: Check function arguments.*)?$", re.MULTILINE)


class PatternError(ValueError):
    """The text is not a regular expression. The message says why."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern, searched without regard to case. Thread-safe."""

    text: str
    _search: Callable[[str], bool] = field(repr=False, compare=False)

    def search(self, text: str) -> bool:
        """Return True if the pattern matches anywhere in `text`."""
        return self._search(text)


def compile(text: str) -> Pattern:  # noqa: A001 - regex.compile reads like re.compile
    """Compile a pattern. Raises `PatternError`."""
    import cel  # noqa: PLC0415 - takes 0.25 s, and most commands search nothing

    program = cel.compile("text.matches(pattern)")

    @lru_cache(_KEPT)
    def search(searched: str) -> bool:
        return bool(program.execute({"text": printable(searched), "pattern": f"(?i){text}"}))

    try:
        search("")
    except (RuntimeError, ValueError) as fault:
        raise PatternError(_reason(str(fault))) from None
    return Pattern(text, search)


def _reason(fault: str) -> str:
    match = _REASON.search(fault)
    if match:
        return match[1]
    return "it is too large" if "size limit" in fault else "it cannot be compiled"
