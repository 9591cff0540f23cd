"""What the page serves as the `phoenix` client is what npm gives."""

from __future__ import annotations

import pytest

from infertool.embedded.channel_server.wire import STATIC
from tests.js.packages import PHOENIX
from tests.support.install import npm

pytestmark = pytest.mark.node


@pytest.mark.parametrize(
    ("vendored", "original"),
    [("phoenix.mjs", "priv/static/phoenix.mjs"), ("phoenix.LICENSE.md", "LICENSE.md")],
)
def test_the_vendored_client_is_npms(vendored: str, original: str) -> None:
    published = npm(PHOENIX) / "node_modules" / "phoenix" / original
    assert STATIC.joinpath("vendor", vendored).read_bytes() == published.read_bytes()
