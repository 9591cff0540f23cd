"""Several confirmed sends, for adapters that write each message by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from infertool.brokers.port import OnEnds, OnSent
from infertool.errors import InfertoolError
from infertool.message import Outgoing


def send_each(
    send: Callable[[Outgoing, OnSent], None], messages: Sequence[tuple[Outgoing, Any]], on_ends: OnEnds
) -> None:
    """Do what `Broker.send_all` says with a `send` for one message."""
    for outgoing, token in messages:
        try:
            send(outgoing, partial(_tell, on_ends, token))
        except InfertoolError as error:
            on_ends([(token, error)])


def _tell(on_ends: OnEnds, token: Any, error: Exception | None) -> None:
    on_ends([(token, error)])
