"""What a consumer that replies publishes besides: nothing, unless it is told where."""

from __future__ import annotations

import pytest

from infertool.app.consumer import with_replies_alone
from infertool.settings.load import Loaded
from tests.settings.test_load import empty_folder, settings

__all__ = ["empty_folder"]


def loaded(text: str) -> Loaded:
    return settings(text)


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("", "phoenix"),
        ("[consume]\nreply = true", "none"),
        ('[consume]\nreply = true\n[publish]\nmode = "phoenix"', "phoenix"),
        ('[consume]\nreply = true\n[publish]\nmode = "stdout"', "stdout"),
        ('[consume]\nreply = true\n[phoenix]\nurl = "ws://a:4000/socket/websocket"', "phoenix"),
    ],
)
def test_replies_alone(text: str, mode: str) -> None:
    assert with_replies_alone(loaded(text)).publish.mode == mode
