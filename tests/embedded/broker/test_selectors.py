"""Selectors that ActiveMQ may take, and the embedded broker does not."""

from __future__ import annotations

import pytest

from infertool.embedded.broker.selectors import SelectorError, compile_selector


@pytest.mark.parametrize("text", ["(" * 4000 + "n = 1" + ")" * 4000, "NOT (" * 1500 + "n = 1" + ")" * 1500])
def test_too_many_parentheses(text: str) -> None:
    with pytest.raises(SelectorError, match="parentheses"):
        compile_selector(text)
