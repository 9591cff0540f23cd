"""Regular expressions that a person types, searched in text from outside.

The engine is that of CEL's `matches`: its time is linear in the text whatever the pattern, so `(a+)+$` ends at once. In
return it knows no look-around and no back references.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from infertool.text.sanitize import printable

# A queue holds few different errors; a pattern is compiled anew for each search.
_KEPT = 4096
_REASON = re.compile(r"^error: (.*?)\.?(?: Check function arguments.*)?$", re.MULTILINE)


class PatternError(ValueError):
    """The text is no regular expression. It says why."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern that is searched whatever the case. Safe to use from several threads."""

    text: str
    _search: Callable[[str], bool] = field(repr=False, compare=False)

    def search(self, text: str) -> bool:
        """Return True if it is found anywhere in `text`."""
        return self._search(text)


def compile(text: str) -> Pattern:  # noqa: A001 - patterns.compile reads like re.compile
    """Return the pattern. Raises `PatternError`."""
    import cel  # noqa: PLC0415 - a quarter of a second, and most commands search nothing

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
