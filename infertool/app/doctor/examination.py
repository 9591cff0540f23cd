"""All checks for settings, in the order in which they run, and what they leave open until they are over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from infertool.app.doctor import (
    clock,
    environment_checks,
    gateway_checks,
    paths_checks,
    settings_checks,
    telemetry_checks,
)
from infertool.app.doctor.broker_checks import BrokerChecks
from infertool.app.doctor.check import NAMES, Check
from infertool.app.doctor.consumer_checks import ConsumerChecks
from infertool.app.doctor.model_checks import ModelChecks
from infertool.app.doctor.phoenix_checks import PhoenixChecks
from infertool.app.doctor.result import Finding, skip
from infertool.errors import SettingsError
from infertool.settings.load import Loaded

_CLOSE_S: Final = 10.0
_CLOCK_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked of an examination beside its settings. `sample` is an event as JSON, None for the built-in one.

    `stats_url` is where a running consumer shows its stats document.
    """

    sample: bytes | None = None
    push: bool = False
    stats_url: str | None = None


class Examination:
    """The checks of one round. `close` ends the connections and processes that they opened."""

    def __init__(self, loaded: Loaded | SettingsError, environ: Mapping[str, str], asked: Asked) -> None:
        self._closes: list[Callable[[], None]] = []
        load = settings_checks.load_check(loaded)
        self.consumer = ConsumerChecks(asked.stats_url)
        self.checks = [load, *environment_checks.checks(), *self.consumer.checks()]
        if isinstance(loaded, SettingsError):
            self.checks += self._without_settings(load)
            return
        settings = loaded.settings
        broker = BrokerChecks(settings)
        phoenix = PhoenixChecks(settings, pushes=asked.push)
        model = ModelChecks(settings, asked.sample)
        self._closes += [broker.close, phoenix.close, model.close]
        clocks = Check(
            name="environment.clock",
            # Last: the broker's time is on the message of the round trip.
            run=lambda: clock.judge([*broker.skews, *clock.of_servers(settings)]),
            needs=(load,),
            timeout_s=_CLOCK_S,
        )
        self.checks += [
            *settings_checks.checks(settings, load),
            environment_checks.packages_check(settings, load),
            *broker.checks(load),
            *phoenix.checks(load),
            *model.checks(load),
            *gateway_checks.checks(settings, load),
            *paths_checks.checks(settings, environ, load),
            *telemetry_checks.checks(settings, environ, load),
            clocks,
        ]

    def close(self) -> None:
        """Close what was opened, in threads: a server that hangs must not hold up the end."""
        threads = [threading.Thread(target=close, name="doctor-close", daemon=True) for close in self._closes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_CLOSE_S)

    def _without_settings(self, load: Check) -> list[Check]:
        there = {check.name for check in self.checks}
        return [Check(name=name, run=_unreached, needs=(load,)) for name in NAMES if name not in there]


def _unreached() -> Finding:
    return skip("there are no settings")
