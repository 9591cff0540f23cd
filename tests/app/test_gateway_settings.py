"""Settings of a gateway that contradict each other."""

from __future__ import annotations

import pytest

from infertool.app import gateway
from infertool.errors import SettingsError
from infertool.settings import GatewaySettings, Settings


def test_a_default_wait_above_the_longest_wait_is_refused() -> None:
    with pytest.raises(
        SettingsError, match=r"wait_s is 20 s, but gateway\.max_wait_s allows at most 10 s; lower"
    ) as caught:
        gateway.check(Settings(gateway=GatewaySettings(max_wait_s=10.0)))
    assert caught.value.key == "gateway.wait_s"
    gateway.check(Settings(gateway=GatewaySettings(wait_s=10.0, max_wait_s=10.0)))
