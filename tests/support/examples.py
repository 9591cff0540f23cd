"""How many examples a property test takes whose examples are slow."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

# Of a test that says nothing, in a run that does not search.
_USUAL = 100


def examples(count: int, **others: Any) -> settings:
    """Return the settings of a test that takes `count` examples, and in a search as many times more as all others."""
    assert settings.default is not None
    return settings(max_examples=max(1, count * settings.default.max_examples // _USUAL), **others)
