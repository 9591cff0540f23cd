"""JMS selectors: not supported yet, and said so."""

from __future__ import annotations

from collections.abc import Callable

from infertool.devserver.broker.messages import StoredMessage

Selector = Callable[[StoredMessage], bool]


class SelectorError(Exception):
    """The selector cannot be understood."""


def compile_selector(text: str) -> Selector:
    """Raise SelectorError."""
    raise SelectorError(f"selectors are not supported: {text}")
