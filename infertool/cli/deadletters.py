"""What the dead-letter commands share: queue names, times, a connected broker, putting back."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from infertool import brokers
from infertool.brokers.port import Broker
from infertool.cli import console
from infertool.deadletter import names, staging
from infertool.deadletter.clock import NOTABLE_S
from infertool.deadletter.take import Bus
from infertool.link import LinkEvent, OnLink
from infertool.settings import Settings

_GOODBYE_S = 10.0
_MEASURE_S = 1.0
# Somebody waits, and a letter over which the broker ends the connection costs three of them.
_LONGEST_BACKOFF_S = 1.0


def who() -> str:
    """Return who runs this, for others to see: user, machine and process."""
    return f"{getpass.getuser()}@{socket.gethostname()} (process {os.getpid()})"


def bus(settings: Settings, on_link: OnLink) -> Bus:
    """Return how to reach the configured broker."""
    name = f"infertool-{socket.gethostname()}-{os.getpid()}"
    broker = replace(settings.broker, reconnect_max_s=min(settings.broker.reconnect_max_s, _LONGEST_BACKOFF_S))
    return Bus(
        lambda linked: brokers.open(broker, name=name, on_link=linked),
        timeout_s=settings.broker.receipt_timeout_s,
        on_link=on_link,
    )


@contextmanager
def connected(settings: Settings) -> Iterator[Broker]:
    """Yield a connected broker; in the end what is pending is written. Raises `ServerError`."""
    broker = bus(settings, _ignore).open_broker(_ignore)
    try:
        broker.connect()
        yield broker
    finally:
        broker.close(_GOODBYE_S)


def put_back(broker: Broker, bus: Bus, queue: str) -> None:
    """Put back what a killed run left in staging. A staging queue that never was has no depth, and is not asked for."""
    depth = broker.measure(names.staging(queue), _MEASURE_S)
    known = depth.size if depth else None
    if known == 0 or (known is None and broker.measure(queue, _MEASURE_S) is not None):
        return
    count = staging.restore(bus, queue, staged=known)
    if count:
        console.err(f"put back {count} letters that an interrupted run had left in {names.staging(queue)}")


def tell_skew(broker_s: float, letters_s: float) -> None:
    """Warn where other clocks differ from this machine's: how far the broker's is ahead, and at least the letters'."""
    apart = [
        f"the broker's is {abs(broker_s):.0f} s {'ahead' if broker_s > 0 else 'behind'}" * (abs(broker_s) > NOTABLE_S),
        f"the newest letter is dated {letters_s:.0f} s ahead of now" * (letters_s > NOTABLE_S),
    ]
    if told := ", and ".join(filter(None, apart)):
        console.err(f"warning: clocks differ from this machine's: {told}; --since and --until go by this machine's")


def iso(at: float | None) -> str | None:
    """Return a time (seconds since the epoch) as ISO 8601 in UTC."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def when(at: float | None) -> str:
    """Return a time (seconds since the epoch) for a table, in UTC."""
    return "-" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}Z"


def _ignore(_event: LinkEvent) -> None:
    pass
