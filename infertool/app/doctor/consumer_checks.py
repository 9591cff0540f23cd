"""The check of a consumer that runs: what its stats document says."""

from __future__ import annotations

from typing import Final

import msgspec

from infertool.app.doctor.check import Check
from infertool.app.doctor.http_get import Answer, get
from infertool.app.doctor.result import Finding, fail, ok, skip, warn
from infertool.app.doctor.words import duration
from infertool.errors import UnreachableError
from infertool.telemetry.stats_document import StatsDocument

_PATH: Final = "/stats"
_TIMEOUT_S: Final = 10.0
_HINT: Final = "give the address of telemetry.metrics of a consumer that runs, such as http://127.0.0.1:9464"
_decode = msgspec.json.Decoder(StatsDocument).decode


class ConsumerChecks:
    """Makes the check. `document` is what the consumer answered, for a bundle."""

    def __init__(self, stats_url: str | None) -> None:
        self._url = stats_url
        self.document: bytes | None = None

    def checks(self) -> list[Check]:
        """Return the check, which needs no settings."""
        return [Check(name="telemetry.consumer", run=self._consumer, timeout_s=2 * _TIMEOUT_S)]

    def _consumer(self) -> Finding:
        if self._url is None:
            return skip("no --stats-url of a consumer that runs")
        answer, document = stats_at(self._url)
        self.document = answer.body
        return _judge(document)


def stats_at(url: str) -> tuple[Answer, StatsDocument]:
    """Return the stats document of the consumer at `url`. Raises `UnreachableError` if none answers there."""
    answer = get(url, _PATH, _TIMEOUT_S, setting="--stats-url", advice=_HINT)
    try:
        return answer, _decode(answer.body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        what = f"what answers at {answer.address} is no consumer of infertool"
        raise UnreachableError(what, address=answer.address, advice=_HINT) from None


def _judge(document: StatsDocument) -> Finding:
    settled, ratio = document.rate.settled, document.errors.ratio_5m
    failed = "" if ratio is None else f", {ratio:.2%} failed in 5 min"
    window = document.window
    value = (
        f"{document.consumer} {document.version}, up {duration(document.uptime_s)}; {settled:.3g} events/s{failed}; "
        f"{window.in_progress} of {window.limit} in progress"
    )
    connections = document.connections
    down = [name for name in ("broker", "phoenix") if getattr(connections, name).up is False]
    if down:
        return fail(f"{value}; without a connection to {' and '.join(down)}", "see its log", settled, "events/s")
    if document.progress.stuck:
        idle = duration(document.progress.idle_s)
        what = f"{value}; stuck for {idle}: messages wait, and nothing moves"
        return fail(what, "restart it if its /livez is 503; see NoProgress in docs/alerts.md", settled, "events/s")
    firing = [f"{alert.rule} ({alert.summary})" for alert in document.alerts if alert.state == "firing"]
    if firing:
        return warn(f"{value}; firing: {', '.join(firing)}", "see docs/alerts.md", settled, "events/s")
    return ok(value, settled, "events/s")
