"""A result and an alert pushed to the service topic, to see what confirms them. Viewers see them."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from typing import Final

from infertool.app.doctor.result import Finding, fail, ok, warn
from infertool.app.doctor.words import duration
from infertool.consumer.router import FAILURE_EVENT, RESULT_EVENT
from infertool.publishers.phoenix import PhoenixPublisher
from infertool.publishers.port import Confirmation, Publication, Rejection
from infertool.settings import Settings
from infertool.telemetry.signals import Signal
from infertool.text import json_text

_GOODBYE_S: Final = 2.0
_WEAK: Final = frozenset({"barrier", "none"})


def push(settings: Settings) -> Finding:
    """Push a `new_result` and an `inference_failed`, marked as probes; return what confirmed the result.

    Raises as `Publisher.start`.
    """
    publisher: PhoenixPublisher[None] = PhoenixPublisher(settings.phoenix, settings.publish, _ignore)
    limit_s = 3 * settings.phoenix.push_timeout_s + settings.phoenix.connect_timeout_s
    event_id = f"infertool-doctor-{secrets.token_hex(8)}"
    known = {"event_id": event_id, "request_id": event_id, "probe": True}
    result = known | {"prediction": {}, "status": "SUCCESS"}
    alert = known | {"error": "a probe of infertool doctor", "error_type": "Probe", "stage": "infer", "attempts": 1}
    try:
        publisher.start()
        began = time.monotonic()
        confirmed = _push(publisher, Publication(RESULT_EVENT, event_id, json_text.dumps(result), None), limit_s)
        took_s = time.monotonic() - began
        if isinstance(confirmed, Finding):
            return confirmed
        refused = _push(publisher, Publication(FAILURE_EVENT, event_id, json_text.dumps(alert), None), limit_s)
    finally:
        publisher.close(_GOODBYE_S)
    if isinstance(refused, Finding):
        return refused
    by = str(confirmed.confirmed_by)
    value = f"a new_result was confirmed by {by} after {duration(took_s)}, and an inference_failed was, too"
    if by in _WEAK:
        return warn(value, "have the channel reply {:reply, :ok, socket}: a reply proves more", took_s, "seconds")
    return ok(value, took_s, "seconds")


def _push(
    publisher: PhoenixPublisher[None], publication: Publication[None], limit_s: float
) -> Confirmation[None] | Finding:
    """Push, and return the confirmation, or what is wrong."""
    settled = threading.Event()
    found: list[Confirmation[None] | Rejection[None]] = []

    def take(confirmations: Sequence[Confirmation[None]], rejections: Sequence[Rejection[None]]) -> None:
        found.extend([*confirmations, *rejections])
        settled.set()

    publisher.report_to(take)
    publisher.publish([publication])
    settled.wait(limit_s)
    what = f"an {publication.event}" if publication.event == FAILURE_EVENT else f"a {publication.event}"
    if not found:
        return fail(
            f"nothing confirmed {what} within {limit_s:g} s",
            f"has the channel a handle_in for {publication.event}, and does it reply {{:reply, :ok, socket}}? See the "
            "server's log; a channel that never replies needs phoenix.confirm = barrier",
        )
    first = found[0]
    if isinstance(first, Rejection):
        return fail(
            f"the channel refused {what}: {first.reason}", f"see the channel's handle_in for {publication.event}"
        )
    return first


def _ignore(_signal: Signal) -> None:
    """Hear no signals: the result says it all."""
