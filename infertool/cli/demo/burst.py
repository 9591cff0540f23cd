"""`infertool demo --burst`: ten times the capacity through the gateway, and what became of it."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

from infertool.app import extra
from infertool.cli.common import console
from infertool.cli.common.gateway import GatewayProcess
from infertool.cli.common.signals import stopped_by_signals
from infertool.cli.demo.run import HOST, await_consumer, environment, last_words
from infertool.embedded import processes
from infertool.errors import InfertoolError
from infertool.hangup import tolerant
from infertool.load.burst import Burst, Plan, Second
from infertool.settings import BrokerSettings
from infertool.workers.process import Process

if TYPE_CHECKING:
    from rich.console import RenderableType

# The model takes 100 ms, and four calls run at the same time.
_MODEL: Final = "sim:?min_ms=90&max_ms=110&failure_rate=0"
_CALLS: Final = 4
CAPACITY_PER_S: Final = 40.0
FACTOR: Final = 10.0
_CALM_S: Final = 4.0
_RECOVERY_S: Final = 60.0
SHARES: Final = {"interactive": 0.4, "standard": 0.4, "batch": 0.2}
_CLASSES: Final = {
    "interactive": {"weight": 8, "budget": "2s", "priority": 8},
    "standard": {"weight": 3, "budget": "6s", "priority": 4},
    "batch": {"weight": 1, "budget": "10s", "priority": 1},
}
# A shorter queue at the broker than usual, as the budgets are short; clients who say who they are, as behind a proxy.
_SETTINGS: Final = {
    "INFERTOOL_GATEWAY__CLASSES": json.dumps(_CLASSES),
    "INFERTOOL_GATEWAY__DISPATCH_AHEAD_S": "0.5",
    "INFERTOOL_GATEWAY__TRUSTED_PROXIES": '["127.0.0.1"]',
}
_ROWS: Final = 14
_BAR: Final = 40


def run(*, seconds: float, as_json: bool, quiet: bool) -> None:
    """Run the burst to its end, and print what became of it."""
    extra.check("demo --burst")
    view = _View(silent=as_json or quiet)
    with ExitStack() as stack:
        broker = processes.start(processes.BROKER, host=HOST, port=0, env=environment())
        stack.callback(broker.stop)
        settings = BrokerSettings(url=f"stomp://{HOST}:{broker.port}")
        gateway = GatewayProcess(settings.url, host=HOST, port=0, env={**environment(), **_SETTINGS})
        stack.callback(gateway.stop)
        log = stack.enter_context(tempfile.TemporaryFile())
        consumer = Process(
            "infertool", "--config", os.devnull, "--quiet", "consume", "--broker", settings.url, "--model", _MODEL,
            "--concurrency", _CALLS, "--reply", "--publish", "none", stdout=subprocess.DEVNULL, stderr=log,
            env=environment(),
        )  # fmt: skip
        stack.callback(consumer.discard)
        url = gateway.wait_ready()
        plan = Plan(
            capacity_per_s=CAPACITY_PER_S, factor=FACTOR, calm_s=_CALM_S, burst_s=seconds, recovery_s=_RECOVERY_S,
            shares=SHARES,
        )  # fmt: skip
        burst = Burst(url, plan, view.add)
        stack.enter_context(stopped_by_signals(burst.stop, "stopping"))

        def check() -> None:
            gateway.check()
            if consumer.has_ended():
                raise InfertoolError(f"the consumer ended early: {last_words(log)}")

        await_consumer(settings, check)
        with view.shown():
            found = asyncio.run(burst.run())
        check()
    if as_json:
        console.emit_json(found)
    else:
        console.out(*_summary(found))


class _View:
    """Shows each second: a line, or on a terminal a picture that moves."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._live = not silent and console.on_terminal()
        self._seconds: list[Second] = []

    def add(self, second: Second) -> None:
        """Show one second."""
        self._seconds.append(second)
        if not self._silent and not self._live:
            console.out(_line(second))

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the view while the block runs."""
        if not self._live:
            yield
            return
        from rich.console import Console
        from rich.live import Live

        terminal = Console(file=tolerant(sys.stdout))
        with Live(console=terminal, get_renderable=self._render, refresh_per_second=4):
            yield

    def _render(self) -> RenderableType:
        from rich.text import Text

        text = Text(no_wrap=True, overflow="ellipsis")
        for second in self._seconds[-_ROWS:]:
            scale = _BAR / (CAPACITY_PER_S * FACTOR)
            served = min(_BAR, math.ceil(sum(second.served.values()) * scale))
            refused = min(_BAR - served, round(second.refused * scale))
            text.append("█" * served, "green")
            text.append("█" * refused, "red")
            text.append(f"{' ' * (_BAR - served - refused)}{_line(second)}\n", "bold" if second.burst else "")
        return text


def _line(second: Second) -> str:
    served = ", ".join(f"{second.served[name]} {name}" for name in SHARES if second.served[name])
    return (
        f"{second.at_s:4} s  {'burst' if second.burst else 'calm '}  {second.sent} sent, "
        f"{sum(second.served.values())} served{f' ({served})' if served else ''}, {second.refused} refused, "
        f"{second.open} open"
    )


def _summary(found: dict[str, Any]) -> list[str]:
    """Return the lines at the end."""
    head = f"{'':11}  {'sent':>5}  {'served':>6}  {'refused':>7}  {'p50':>8}  {'p99':>8}  Retry-After  served at return"
    lines = ["", head]
    for name, each in found["classes"].items():
        told = each["retry_after_s"]
        wait = f"{told['least']:g}-{told['most']:g} s" if told else "-"
        lines.append(
            f"{name:11}  {each['sent']:5}  {each['served']:6}  {each['refused']:7}  {_ms(each['p50_ms']):>8}  "
            f"{_ms(each['p99_ms']):>8}  {wait:>11}  {each['served_on_return']} of {each['returned']}"
        )
    recovery = found["recovery_s"]
    after = "was not seen" if recovery is None else f"took {recovery:g} s after the burst"
    burst = found["burst"]
    last = (
        f"capacity {found['capacity_per_s']:g}/s, burst {burst['factor']:g} times that for {burst['seconds']:g} s: "
        f"{found['sent']} sent, {found['served']} served, {found['refused']} refused at first, "
        f"{found['failed']} failed; recovery {after}"
    )
    return [*lines, "", last]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"
