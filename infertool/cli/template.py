"""Lines by a template: `{request_id} {prediction.class} {prediction.confidence:.2f}`.

Dotted paths and nothing else: no attributes, no calls. `{{` and `}}` are braces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from infertool.errors import UsageError
from infertool.feed.arrival import Arrival
from infertool.feed.encoding import fixed
from infertool.feed.paths import MISSING, Path, parse_path
from infertool.printable import clean

NOTHING = "-"
_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[^{}]+")
_DIGITS = re.compile(r"\.(\d)f")


@dataclass(frozen=True, slots=True)
class _Slot:
    """A place for a value; a number gets `digits` after its point, if given."""

    path: Path
    digits: int | None

    def fill(self, arrival: Arrival) -> str:
        value = self.path.of(arrival)
        if value is MISSING:
            return NOTHING
        if self.digits is not None and isinstance(value, int | float) and not isinstance(value, bool):
            return fixed(value, self.digits)
        return clean(str(self.path.shown(arrival)))


class Template:
    """A template. Raises `UsageError` for one that cannot be understood."""

    def __init__(self, template: str) -> None:
        self._parts: list[str | _Slot] = []
        end = 0
        for match in _PART.finditer(template):
            if match.start() != end:
                break
            end = match.end()
            self._parts.append(match[0][:1] if match[1] is None and match[0] in {"{{", "}}"} else _part(match))
        if end != len(template):
            what = f"the {template[end]} at character {end + 1} of the format has no partner"
            raise UsageError(what, advice="write {{ or }} for a brace itself")

    def line(self, arrival: Arrival) -> str:
        """Return the line of `arrival`; what it lacks is `-`, and nothing of it reaches the terminal raw."""
        return "".join([part if isinstance(part, str) else part.fill(arrival) for part in self._parts])


def _part(match: re.Match[str]) -> str | _Slot:
    inner: str | None = match[1]
    if inner is None:
        return match[0]
    name, colon, form = inner.partition(":")
    digits = _DIGITS.fullmatch(form)
    if colon and not digits:
        raise UsageError(f"{form!r} is no number format", advice="write for example {prediction.confidence:.2f}")
    return _Slot(parse_path(name.strip()), int(digits[1]) if digits else None)
