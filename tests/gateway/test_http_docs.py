"""docs/gateway.md lists each reason and metric of the code; `python -m tests.gateway.test_http_docs` writes them."""

from __future__ import annotations

import re
from pathlib import Path

from infertool.gateway.metrics import COUNTERS, GAUGES, PREFIX
from infertool.gateway.problem import Reason

DOCUMENT = Path(__file__).parents[2] / "docs" / "gateway.md"
_BLOCK = re.compile(r"(<!-- reasons: [^\n]*-->\n).*?(<!-- end -->)", re.DOTALL)
# What whoever gets it does.
ADVICE = {
    Reason.BODY_TOO_LARGE: "send less, or raise `gateway.max_body_bytes`",
    Reason.BODY_TIMEOUT: "send the body without pauses; is its length right?",
    Reason.CONTENT_TYPE: "`application/json` (UTF-8) or `application/msgpack`, not packed",
    Reason.INVALID_BODY: "`detail` says where it is no JSON or MessagePack",
    Reason.INVALID_HEADER: "`detail` names the header",
    Reason.INVALID_PARAMETER: "`detail` names the parameter",
    Reason.UNAUTHENTICATED: "send a key, a token or a certificate",
    Reason.INVALID_CREDENTIALS: "is the key revoked, or the token expired?",
    Reason.TOO_MANY_FAILURES: "send the right ones, which pass at once; wrong ones after `Retry-After`",
    Reason.KEY_SET_AWAY: "look at `gateway.jwks_url`; try again",
    Reason.MODEL_FORBIDDEN: "`allowed_models` are those of this key",
    Reason.CLASS_FORBIDDEN: "`allowed_classes` are those of this key",
    Reason.UNKNOWN_MODEL: "`detail` names the models",
    Reason.UNKNOWN_CLASS: "`detail` names the classes",
    Reason.NOT_FOUND: "see `/openapi.json`",
    Reason.METHOD_NOT_ALLOWED: "`Allow` names the methods",
    Reason.UNKNOWN_REQUEST: "is it an id of this gateway, and a request of this client?",
    Reason.GONE: "results are kept for `gateway.keep_s`",
    Reason.NOT_ACCEPTABLE: "accept `application/json`, or `text/event-stream`",
    Reason.RATE_LIMITED: "wait for `Retry-After`, which is exact",
    Reason.TOO_MANY_IN_FLIGHT: "wait for results before sending more",
    Reason.TOO_MANY_BYTES: "wait for results before sending more",
    Reason.IDEMPOTENCY_KEY_INVALID: "1 to 255 visible ASCII characters",
    Reason.IDEMPOTENCY_KEY_REUSED: "take a new key for another body",
    Reason.WEBHOOK_REFUSED: "is its host in `gateway.webhook_hosts`?",
    Reason.OVER_BUDGET: "come back at `Retry-After`, or use a class that waits longer",
    Reason.DEADLINE_TOO_EARLY: "it would expire before its result: allow more time",
    Reason.FULL: "come back at `Retry-After`",
    Reason.BROKER_AWAY: "look at the broker; try again",
    Reason.STORE_AWAY: "look at the disk of `gateway.state_dir`; try again",
    Reason.DRAINING: "send it again: another gateway takes it",
    Reason.INFERENCE_FAILED: "repair the model or the event, then run the command in `replay`",
    Reason.INPUT_REFUSED: "`/predict` and `/v2`: the model refuses this input, whoever tries again",
    Reason.EXPIRED: "allow more time by `Request-Timeout`, or add consumers",
    Reason.CANCELLED: "it was given up by DELETE, or its caller hung up",
    Reason.INVALID_HTTP: "`detail` says what proxies and servers could read differently",
    Reason.HEADERS_TOO_LARGE: "64 KiB and 200 headers are the most",
    Reason.HEADER_TIMEOUT: "send the headers at once",
    Reason.TOO_MANY_CONNECTIONS: "keep connections and use them again; `gateway.max_connections`",
    Reason.INTERNAL: "look for the `X-Request-Id` in the gateway's log",
}  # fmt: skip


def table() -> str:
    """Return the table of the reasons, by status."""
    rows = [
        f"| {reason.status.value} | `{reason.name.lower()}` | {reason.title} | {ADVICE[reason]} |"
        for reason in sorted(Reason, key=lambda each: each.status.value)
    ]
    return "\n".join(["| status | reason | | what to do |", "|---|---|---|---|", *rows, ""])


def metrics() -> list[str]:
    """Return the rows of the metrics that the parts report."""
    counters = [(f"{PREFIX}{name}_total", label, text) for name, (text, label) in COUNTERS.items()]
    gauges = [(f"{PREFIX}{name}", label, text) for name, (text, label) in GAUGES.items()]
    return [
        f"| `{name}` | {label} | {text[0].lower()}{text[1:].rstrip('.')} |"
        for name, label, text in [*gauges, *counters]
    ]


def written(text: str) -> str:
    text = _BLOCK.sub(lambda found: found[1] + table() + found[2], text)
    kept = [line for line in text.splitlines() if line not in metrics()]
    last = max(number for number, line in enumerate(kept) if line.startswith(f"| `{PREFIX}"))
    return "\n".join([*kept[: last + 1], *metrics(), *kept[last + 1 :], ""])


def test_each_reason_and_metric_is_in_the_document() -> None:
    assert set(ADVICE) == set(Reason)
    assert DOCUMENT.read_text() == written(DOCUMENT.read_text())


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text()))
