"""The same rules as Prometheus alerting rules, where PromQL can say them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from infertool.alerts import fields, syntax
from infertool.alerts.rule import Rule

_BY: Final = "by (job, instance)"
_NEGATED: Final = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
_SETTLED: Final = 'infertool_messages_settled_total{outcome!~"handed_back|revoked|delayed"}'
_CIRCUIT: Final = "model.circuit"


def _gauge(metric: str) -> str:
    return f"max {_BY} ({metric})"


def _rate(metric: str, span: str = "1m") -> str:
    return f"sum {_BY} (rate({metric}[{span}]))"


def _quantiles(group: str, metric: str) -> Iterator[tuple[str, str]]:
    for name, quantile in (("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99)):
        buckets = f"sum by (job, instance, le) (rate({metric}_bucket[1m]))"
        yield f"latency.{group}.{name}", f"1000 * histogram_quantile({quantile}, {buckets})"
    yield f"latency.{group}.count", f"sum {_BY} (increase({metric}_count[1m]))"


def _errors(span: str) -> Iterator[tuple[str, str]]:
    failed = _rate("infertool_failures_total", span)
    yield f"errors.ratio_{span}", f"{failed} / {_rate(_SETTLED, span)}"
    yield f"errors.events_{span}", f"sum {_BY} (increase({_SETTLED}[{span}]))"


# What a field of the stats document is in PromQL. Each has the labels job and instance, so that operators match.
FIELDS: Final[Mapping[str, str]] = {
    "queue.depth": _gauge('infertool_queue_messages{state="ready"}'),
    "queue.unacked": _gauge('infertool_queue_messages{state="unacked"}'),
    "queue.consumers": _gauge("infertool_queue_consumers"),
    "queue.oldest_s": _gauge("infertool_queue_oldest_message_age_seconds"),
    "queue.lag": _gauge("infertool_lag_messages"),
    "queue.lag_s": _gauge("infertool_lag_seconds"),
    "queue.lost": f"sum {_BY} (infertool_lost_messages_total)",
    "queue.gap": _gauge("infertool_offset_gap"),
    "queue.drain_s": _gauge("infertool_queue_drain_seconds"),
    "dlq.depth": _gauge("infertool_dead_letters"),
    "dlq.rate": _rate('infertool_messages_settled_total{outcome="dead_lettered"}'),
    "rate.received": _rate("infertool_messages_received_total"),
    "rate.settled": _rate(_SETTLED),
    "rate.failed": _rate("infertool_failures_total"),
    "rate.dead_lettered": _rate('infertool_messages_settled_total{outcome="dead_lettered"}'),
    "rate.retried": _rate("infertool_retries_total"),
    **dict(_quantiles("event", "infertool_event_duration_seconds")),
    **dict(_quantiles("inference", "infertool_inference_duration_seconds")),
    **dict(_quantiles("age", "infertool_event_age_seconds")),
    **dict(_quantiles("confirm", "infertool_publish_confirm_seconds")),
    **dict(_errors("5m")),
    **dict(_errors("30m")),
    **dict(_errors("1h")),
    **dict(_errors("6h")),
    "process.cpu": _rate("process_cpu_seconds_total"),
    "process.cpu_limit": _gauge("infertool_cpu_limit_cores"),
    "process.memory_bytes": _gauge("process_resident_memory_bytes"),
    "process.memory_limit_bytes": _gauge("infertool_memory_limit_bytes"),
    "process.open_files": _gauge("process_open_fds"),
    "process.open_files_limit": _gauge("process_max_fds"),
    "process.disk_free_bytes": _gauge("infertool_state_disk_free_bytes"),
    "process.disk_free": _gauge("infertool_state_disk_free_ratio"),
    "process.clock_skew_s": _gauge("infertool_clock_skew_seconds"),
    "connections.broker.up": _gauge('infertool_connection_up{side="broker"}'),
    "connections.phoenix.up": _gauge('infertool_connection_up{side="phoenix"}'),
    "connections.broker.reconnects": f'sum {_BY} (infertool_reconnects_total{{side="broker"}})',
    "connections.phoenix.reconnects": f'sum {_BY} (infertool_reconnects_total{{side="phoenix"}})',
    "model.batch_size": _gauge("infertool_batch_size_limit"),
    "window.in_progress": _gauge("infertool_window_messages"),
    "window.limit": _gauge("infertool_window_limit"),
    "window.unconfirmed": _gauge("infertool_pushes_unconfirmed"),
    "window.oldest_push_s": _gauge("infertool_push_oldest_seconds"),
    "window.paused": _gauge("infertool_flow_paused"),
    "progress.stuck": _gauge("infertool_stuck"),
    "progress.idle_s": _gauge("infertool_idle_seconds"),
}


class NotInPromqlError(Exception):
    """A rule cannot be said in PromQL. The message says why."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A file of Prometheus rules, and the reason for each rule that is not in it."""

    text: str
    left_out: Mapping[str, str]


def export(rules: Sequence[Rule]) -> Exported:
    """Return the rules that are enabled as a rule file of Prometheus."""
    lines = [
        "# Alert rules of infertool for Prometheus.",
        *_inhibitions(rules),
        "groups:",
        "  - name: infertool",
        "    rules:",
    ]
    left_out = {}
    for rule in rules:
        if not rule.enabled:
            continue
        try:
            lines += _rule(rule)
        except NotInPromqlError as error:
            left_out[rule.name] = str(error)
    return Exported("\n".join(lines), left_out)


def expression(rule: Rule) -> str:
    """Return the PromQL of `rule`, its hysteresis included. Raises `NotInPromqlError`."""
    when = _truth(rule.when.tree, negated=False)
    if rule.clear is None:
        return when
    # What fired goes on firing until it is clear. The labels stay the same, so it is the same alert.
    on = f'ALERTS{{alertname="{rule.name}", alertstate="firing"}}'
    return f"{when} or ({_truth(rule.clear.tree, negated=True)} and on (job, instance) {on})"


def _inhibitions(rules: Sequence[Rule]) -> Iterator[str]:
    inhibited = [rule for rule in rules if rule.enabled and rule.inhibited_by]
    if inhibited:
        yield "# Prometheus does not inhibit. For Alertmanager's configuration:"
        yield "#   inhibit_rules:"
    for rule in inhibited:
        sources = "|".join(rule.inhibited_by)
        yield f'#     - source_matchers: [alertname=~"{sources}"]'
        yield f'#       target_matchers: [alertname="{rule.name}"]'
        yield "#       equal: [job, instance]"


def _rule(rule: Rule) -> Iterator[str]:
    text = expression(rule)
    yield f"      - alert: {rule.name}"
    yield f"        expr: {json.dumps(text)}"
    if rule.for_s:
        yield f"        for: {_duration(rule.for_s)}"
    if rule.keep_firing_for_s:
        yield f"        keep_firing_for: {_duration(rule.keep_firing_for_s)}"
    yield "        labels:"
    yield f"          severity: {json.dumps(rule.severity)}"
    yield "        annotations:"
    yield f"          summary: {json.dumps(_summary(rule))}"


def _summary(rule: Rule) -> str:
    text = (rule.summary or rule.when.text).replace("{{", '{{ "{{" }}')
    thresholds = [
        f"{node.right.value:.6g}"
        for node in syntax.walk(rule.when.tree)
        if isinstance(node, syntax.Binary)
        and node.sign in _NEGATED
        and isinstance(node.right, syntax.Literal)
        and isinstance(node.right.value, int | float)
    ]
    threshold = thresholds[0] if thresholds else "unknown"
    return text.replace("{value}", "{{ $value | printf `%.6g` }}").replace("{threshold}", threshold)


def _duration(seconds: float) -> str:
    return f"{round(seconds)}s" if seconds == round(seconds) else f"{round(seconds * 1000)}ms"


def _truth(node: syntax.Node, *, negated: bool) -> str:
    """Return an expression that has a sample where `node` holds (or does not, if `negated`)."""
    match node:
        case syntax.Unary(sign="!", operand=operand):
            return _truth(operand, negated=not negated)
        case syntax.Binary(sign="&&" | "||" as sign, left=left, right=right):
            word = "and" if (sign == "&&") != negated else "or"
            return f"({_truth(left, negated=negated)} {word} {_truth(right, negated=negated)})"
        case syntax.Binary(sign="in"):
            return _membership(node, negated=negated)
        case syntax.Binary(sign=sign) if sign in _NEGATED:
            return _comparison(node, _NEGATED[sign] if negated else sign)
        case syntax.Choice(condition=condition, yes=yes, no=no):
            chosen = f"{_truth(condition, negated=False)} and {_truth(yes, negated=negated)}"
            return f"(({chosen}) or ({_truth(condition, negated=True)} and {_truth(no, negated=negated)}))"
        case syntax.Path():
            return f"({_field(node)} == {int(not negated)})"
    raise NotInPromqlError("PromQL compares numbers; it has no text functions and no constant truth")


def _comparison(node: syntax.Binary, sign: str) -> str:
    left, right = node.left, node.right
    if isinstance(left, syntax.Literal) and not isinstance(right, syntax.Literal) and sign in {"==", "!="}:
        left, right = right, left
    match left, right:
        case syntax.Path(), syntax.Literal(value=None):
            if sign == "!=":
                return _field(left)
            raise NotInPromqlError(f"without a sample of {left.name} there are no labels either")
        case syntax.Path(), syntax.Literal(value=bool() as value):
            return f"({_field(left)} == {int(value == (sign == '=='))})"
        case syntax.Path(name=name), syntax.Literal(value=str() as value) if name == _CIRCUIT:
            return _circuit(value, negated=sign == "!=")
    return f"({_number(left)} {sign} {_number(right)})"


def _membership(node: syntax.Binary, *, negated: bool) -> str:
    items = node.right.items if isinstance(node.right, syntax.Listed) else ()
    word, sign = ("and", "!=") if negated else ("or", "==")
    parts = [_comparison(syntax.Binary(sign, node.left, item, node.at), sign) for item in items]
    if not parts:
        raise NotInPromqlError("nothing is in an empty list")
    return f"({f' {word} '.join(parts)})"


def _circuit(state: str, *, negated: bool) -> str:
    return f"(max {_BY} (infertool_circuit_state{{state={json.dumps(state)}}}) == {int(not negated)})"


def _number(node: syntax.Node) -> str:
    match node:
        case syntax.Literal(value=int() | float(), text=text):
            return text
        case syntax.Path():
            return f"({_field(node)})"
        case syntax.Unary(sign="-", operand=operand):
            return f"(-{_number(operand)})"
        case syntax.Binary(sign="/", left=left, right=right) if _is_whole(left):
            raise NotInPromqlError(
                f"CEL rounds the whole number of a division at character {node.at + 1}: use double()"
            )
        case syntax.Binary(sign="+" | "-" | "*" | "/" | "%" as sign, left=left, right=right):
            return f"({_number(left)} {sign} {_number(right)})"
        case syntax.Call(function="double", arguments=(argument,)):
            return _number(argument)
    raise NotInPromqlError("PromQL has only numbers, and no choice between them")


def _is_whole(node: syntax.Node) -> bool:
    match node:
        case syntax.Literal(value=value):
            return isinstance(value, int)
        case syntax.Path(name=name):
            return fields.known()[name].kind == "int"
        case syntax.Call(function=name):
            return name != "double"
    return any(map(_is_whole, syntax.children(node)))


def _field(path: syntax.Path) -> str:
    if path.name not in FIELDS:
        raise NotInPromqlError(f"no metric tells {path.name}")
    return FIELDS[path.name]
