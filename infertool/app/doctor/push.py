"""One result pushed to the service topic, to see what confirms it. Viewers see it."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from typing import Final

from infertool.app.doctor.result import Finding, fail, ok, warn
from infertool.app.doctor.words import duration
from infertool.publishers.phoenix import PhoenixPublisher
from infertool.publishers.port import Confirmation, Publication, Rejection
from infertool.settings import Settings
from infertool.telemetry.signals import Signal
from infertool.text import json_text

_GOODBYE_S: Final = 2.0
_WEAK: Final = frozenset({"barrier", "none"})


def push(settings: Settings) -> Finding:
    """Push a `new_result` marked as a probe; return what confirmed it. Raises as `Publisher.start`."""
    settled = threading.Event()
    confirmed: list[Confirmation[None]] = []
    rejected: list[Rejection[None]] = []

    def take(confirmations: Sequence[Confirmation[None]], rejections: Sequence[Rejection[None]]) -> None:
        confirmed.extend(confirmations)
        rejected.extend(rejections)
        settled.set()

    publisher: PhoenixPublisher[None] = PhoenixPublisher(settings.phoenix, settings.publish, _ignore)
    publisher.report_to(take)
    event_id = f"infertool-doctor-{secrets.token_hex(8)}"
    document = {"event_id": event_id, "request_id": event_id, "prediction": {}, "status": "SUCCESS", "probe": True}
    limit_s = 3 * settings.phoenix.push_timeout_s + settings.phoenix.connect_timeout_s
    try:
        publisher.start()
        began = time.monotonic()
        publisher.publish([Publication("new_result", event_id, json_text.dumps(document), None)])
        settled.wait(limit_s)
        took_s = time.monotonic() - began
    finally:
        publisher.close(_GOODBYE_S)
    if rejected:
        return fail(f"the channel refused a new_result: {rejected[0].reason}", "see the channel's handle_in")
    if not confirmed:
        return fail(
            f"nothing confirmed a new_result within {duration(took_s)}",
            "have the channel reply {:reply, :ok, socket}, or set phoenix.confirm to barrier",
        )
    by = str(confirmed[0].confirmed_by)
    value = f"a new_result was confirmed by {by} after {duration(took_s)}"
    if by in _WEAK:
        return warn(value, "have the channel reply {:reply, :ok, socket}: a reply proves more", took_s, "seconds")
    return ok(value, took_s, "seconds")


def _ignore(_signal: Signal) -> None:
    """Hear no signals: the result says it all."""
