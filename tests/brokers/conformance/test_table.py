"""The table in docs/brokers.md has each case and each broker, and nothing else. Each case compares its own cell."""

from __future__ import annotations

import pytest

from tests.brokers.conformance import table


def test_the_table_has_each_case_and_each_broker(request: pytest.FixtureRequest) -> None:
    if request.config.getoption(table.OPTION):
        return
    documented = table.read()
    assert list(documented) == table.cases()
    assert all(list(cells) == table.columns() for cells in documented.values())
    assert not [case for case, cells in documented.items() if "not run" in cells.values()]
