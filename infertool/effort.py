"""How much work a CEL expression may be: its evaluator cannot be interrupted, so what may take long is found before."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

_STRINGS: Final = re.compile(r'''r?"""(?:.|\n)*?"""|r?"(?:[^"\\]|\\.)*"|r?'(?:[^'\\]|\\.)*\'''')
_MACROS: Final = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(")
# Characters of a string that count as one value: strings are copied, too.
_CHUNK: Final = 256
# So many steps take half a second where each copies a long list.
_MOST_STEPS: Final = 1_000_000


def macros(expression: str) -> int:
    """Return how many loops (`all`, `exists`, `map`, ...) there are in `expression`."""
    return len(_MACROS.findall(_STRINGS.sub("''", expression)))


def is_small(loops: int, expression: str, names: Mapping[str, Any]) -> bool:
    """Return True if an evaluation ends soon for certain.

    Each loop may go through all there is, inside of another one, and look at all there is in each turn.
    """
    if not loops:
        return True
    most = int(_MOST_STEPS ** (1 / (loops + 1)))
    written = expression.count(",") + 1
    return _count(names, most - written) + written <= most


def _count(value: object, most: int) -> int:
    """Return the number of values in `value`, or some number past `most`."""
    count = 0
    waiting = [value]
    while waiting and count <= most:
        each = waiting.pop()
        count += 1
        if isinstance(each, str):
            count += len(each) // _CHUNK
        elif isinstance(each, Mapping):
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each[: max(most, 0) + 1]
    return count
