"""Rules as PromQL: promtool accepts them, and evaluates the shipped rules as we do."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from infertool.alerts import promql
from infertool.alerts.engine import Engine
from infertool.alerts.fields import known as known_fields
from infertool.alerts.rule import Rule, parse_rules
from infertool.alerts.shipped import SHIPPED
from infertool.alerts.state import State
from infertool.telemetry.metrics import DEFINITIONS
from tests.support.install import apt

pytestmark = pytest.mark.prometheus

STEP_S = 15
Series = Sequence[Any]


def promtool(*arguments: str | Path) -> str:
    apt("prometheus")
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules_of(*tables: dict[str, Any]) -> list[Rule]:
    return parse_rules(tables, SHIPPED, "my.toml")


def steps(text: str) -> list[float]:
    """Return 5x3 as 5 5 5."""
    return [
        float(value)
        for word in text.split()
        for value, _, times in [word.partition("x")]
        for _ in range(int(times or 1))
    ]


def counter(rates: Series) -> list[float]:
    """Return a counter that grows by a step's share of `rates`; it starts high, so that nothing bends towards zero."""
    total, found = 1e6, []
    for rate in rates:
        total += rate * STEP_S
        found.append(total)
    return found


def increase(counted: Series, seconds: int) -> list[float]:
    span = seconds // STEP_S
    return [value - counted[max(0, number - span)] for number, value in enumerate(counted)]


UP, DOWN = "1x8", "0x12"
STUCK = steps("0x4 1x8 0x4")
DEPTH = steps("10x4 1200x4 10x2 1200x14 700x8 500x8 700x8")
AGE = steps("1x4 400x10 200x6 100x6")
LOST = steps("0x4 7x20 0x4")  # it ends with the consumer
DRAIN = steps("1x4 1000x30 700x6 100x6")
SHARE = steps("0.5x4 0.95x12 0.85x6 0.7x6")
FREE = steps("0.5x4 0.04x8 0.06x6 0.09x4")
SKEW = steps("0x4 7x8 3x6 1x4")
DEAD = counter(steps("0x8 0.2x20 0x12"))
CPU = counter(steps("0.5x8 1.98x60 1.8x8 0.5x8"))
FAILED, ALL = counter(steps("0x30 5x60 0x300")), counter(steps("10x390"))
FAST, SLOW = steps("20x20 0x40 20x20"), steps("0x20 20x40 0x20")
CIRCUIT = ["closed"] * 4 + ["open"] * 8 + ["half-open"] * 4 + ["closed"] * 4
QUICK = counter(FAST)
EVERY = counter([one + other for one, other in zip(FAST, SLOW, strict=True)])


def ratio(span_s: int) -> list[float | None]:
    pairs = zip(increase(FAILED, span_s), increase(ALL, span_s), strict=True)
    return [failed / settled if settled else None for failed, settled in pairs]


# For each rule the same story twice: fields of the stats document, and the metrics of its scrapes.
STORIES: dict[str, tuple[Mapping[str, Series], Mapping[str, Series]]] = {
    "ConnectionDown": (
        {"connections.broker.up": [bool(up) for up in steps(f"{UP} {DOWN} {UP}")],
         "connections.phoenix.up": [True] * 28},
        {'infertool_connection_up{side="broker"}': steps(f"{UP} {DOWN} {UP}"),
         'infertool_connection_up{side="phoenix"}': [1] * 28},
    ),
    "NoProgress": ({"progress.stuck": [bool(stuck) for stuck in STUCK]}, {"infertool_stuck": STUCK}),
    "Backlog": ({"queue.depth": DEPTH}, {'infertool_queue_messages{queue="q",state="ready"}': DEPTH}),
    "QueueAge": ({"queue.oldest_s": AGE}, {'infertool_queue_oldest_message_age_seconds{queue="q"}': AGE}),
    "LostMessages": ({"queue.lost": LOST}, {'infertool_lost_messages_total{queue="q"}': LOST}),
    "DrainTime": ({"queue.drain_s": DRAIN}, {'infertool_queue_drain_seconds{queue="q"}': DRAIN}),
    "ResponseTime": (
        {"latency.event.p99_ms": [9950.0 if slow > every / 100 else 990.0 for slow, every in zip(
            increase(counter(SLOW), 60), increase(EVERY, 60), strict=True)],
         "latency.event.count": [int(count) for count in increase(EVERY, 60)]},
        {'infertool_event_duration_seconds_bucket{queue="q",le="1.0"}': QUICK,
         'infertool_event_duration_seconds_bucket{queue="q",le="5.0"}': QUICK,
         'infertool_event_duration_seconds_bucket{queue="q",le="10.0"}': EVERY,
         'infertool_event_duration_seconds_bucket{queue="q",le="+Inf"}': EVERY,
         'infertool_event_duration_seconds_count{queue="q"}': EVERY},
    ),
    "ErrorBurn": (
        {"errors.ratio_5m": ratio(300), "errors.ratio_30m": ratio(1800),
         "errors.ratio_1h": ratio(3600), "errors.ratio_6h": ratio(21600),
         "errors.events_1h": [1000] * 390, "errors.events_6h": [1000] * 390},
        {'infertool_failures_total{stage="infer",error_type="E"}': FAILED,
         'infertool_messages_settled_total{queue="q",outcome="succeeded"}': ALL,
         'infertool_messages_settled_total{queue="q",outcome="handed_back"}': counter(steps("50x390"))},
    ),
    "DeadLetters": (
        {"dlq.rate": [count / 60 for count in increase(DEAD, 60)]},
        {'infertool_messages_settled_total{queue="q",outcome="dead_lettered"}': DEAD},
    ),
    "CircuitOpen": (
        {"model.circuit": CIRCUIT},
        {f'infertool_circuit_state{{state="{state}"}}': [int(each == state) for each in CIRCUIT]
         for state in ("closed", "half-open", "open")},
    ),
    "Memory": (
        {"process.memory_bytes": [int(1e9 * share) for share in SHARE],
         "process.memory_limit_bytes": [10**9] * len(SHARE)},
        {"process_resident_memory_bytes": [int(1e9 * share) for share in SHARE],
         "infertool_memory_limit_bytes": [10**9] * len(SHARE)},
    ),
    "Cpu": (
        {"process.cpu": [seconds / 60 for seconds in increase(CPU, 60)], "process.cpu_limit": [2.0] * len(CPU)},
        {"process_cpu_seconds_total": CPU, "infertool_cpu_limit_cores": [2] * len(CPU)},
    ),
    "Disk": (
        {"process.disk_free": FREE, "process.disk_free_bytes": [int(share * 9e10) for share in FREE]},
        {"infertool_state_disk_free_ratio": FREE,
         "infertool_state_disk_free_bytes": [int(share * 9e10) for share in FREE]},
    ),
    "ClockSkew": ({"process.clock_skew_s": SKEW}, {"infertool_clock_skew_seconds": SKEW}),
}  # fmt: skip


def test_each_shipped_rule_has_a_story() -> None:
    exported = promql.export(rules_of())
    assert exported.left_out == {}
    assert set(STORIES) == {table["name"] for table in SHIPPED}


def test_every_metric_is_one_of_ours() -> None:
    suffixes = re.compile(r"_(?:bucket|count|sum)$")
    known = {definition.full_name for definition in DEFINITIONS.values()}
    named = {name for text in promql.FIELDS.values() for name in re.findall(r"\b(?:infertool|process)_\w+", text)}
    assert {suffixes.sub("", name) if name not in known else name for name in named} <= known
    assert set(promql.FIELDS) <= set(known_fields())


@pytest.mark.parametrize("name", STORIES)
def test_promtool_evaluates_a_shipped_rule_as_we_do(tmp_path: Path, name: str) -> None:
    rule = next(each for each in rules_of({"name": name, "summary": "s"}) if each.name == name)
    fields, metrics = STORIES[name]
    length = len(next(iter(fields.values())))
    engine = Engine([rule])
    firing = []
    for number in range(length):
        engine.evaluate({path: series[number] for path, series in fields.items()}, float(number * STEP_S), 0.0)
        firing.append(engine.states[name].state is State.FIRING)
    assert any(firing), "the story must make it fire"
    assert not firing[-1], "and be resolved"
    alert = {"exp_labels": {"severity": rule.severity, "instance": "i"}, "exp_annotations": {"summary": "s"}}
    story = {
        "interval": f"{STEP_S}s",
        "input_series": [
            {"series": _with_instance(series), "values": " ".join(f"{value:.12g}" for value in values)}
            for series, values in metrics.items()
        ],
        "alert_rule_test": [
            {"eval_time": f"{number * STEP_S}s", "alertname": name, "exp_alerts": [alert] if fires else []}
            for number, fires in enumerate(firing)
        ],
    }
    (tmp_path / "rules.yml").write_text(promql.export([rule]).text)
    # JSON is YAML.
    (tmp_path / "tests.yml").write_text(
        json.dumps({"rule_files": ["rules.yml"], "evaluation_interval": f"{STEP_S}s", "tests": [story]})
    )
    assert "SUCCESS" in promtool("test", "rules", tmp_path / "tests.yml")


def _with_instance(series: str) -> str:
    name, _, labels = series.rstrip("}").partition("{")
    return f'{name}{{{labels}{"," if labels else ""}instance="i"}}'


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("!(queue.depth > 1 && rate.settled < 2.0)", "((queue.depth <= 1) or (rate.settled >= 2.0))"),
        ("rate.settled > 0.0 ? window.paused : queue.depth == 0",
         "(((rate.settled > 0.0) and (window.paused == 1)) or ((rate.settled <= 0.0) and (queue.depth == 0)))"),
        ("model.circuit in ['open'] || !(model.circuit == 'closed')",
         '(((C{state="open"} == 1)) or (C{state="closed"} == 0))'),
        ("!(model.circuit in ['open', 'closed'])", '((C{state="open"} == 0) and (C{state="closed"} == 0))'),
        ("false == window.paused && -queue.depth % 3 < 1", "((window.paused == 0) and (((-queue.depth) % 3) < 1))"),
        ("double(queue.depth) / 2.0 > 1.0", "((queue.depth / 2.0) > 1.0)"),
        ("latency.age.count > 3", "(latency.age.count > 3)"),
    ],
)  # fmt: skip
def test_expressions_are_translated(tmp_path: Path, when: str, expected: str) -> None:
    (rule,) = parse_rules([{"name": "R", "when": when, "for": "1500ms", "summary": '{{ a\n"b" {value}'}], [], "")
    short = promql.expression(rule)
    for path, written in promql.FIELDS.items():
        if path in when:
            short = short.replace(f"({written})", path).replace(written, path)
    short = re.sub(r"max by \(job, instance\) \(infertool_circuit_state(\{.*?\})\)", r"C\1", short)
    assert short == expected
    (tmp_path / "r.yml").write_text(promql.export([rule]).text)
    assert "1 rules found" in promtool("check", "rules", tmp_path / "r.yml")


@pytest.mark.parametrize(
    ("when", "reason"),
    [
        ("queue.depth / 2 > 1", "CEL rounds the whole number"),
        ("queue.name.startsWith('a')", "no text functions"),
        ("queue.name == 'a'", "no metric tells queue.name"),
        ("queue.depth == null", "there are no labels either"),
        ("int(rate.settled) > 1", "PromQL has only numbers"),
        ("(progress.stuck ? 1 : 2) > 1", "PromQL has only numbers"),
        ("latency.event.max_ms > 1.0", "no metric tells latency.event.max_ms"),
        ("true || progress.stuck", "no constant truth"),
    ],
)
def test_what_promql_cannot_say_is_left_out_with_the_reason(when: str, reason: str) -> None:
    (rule,) = parse_rules([{"name": "R", "when": when}], [], "")
    assert reason in promql.export([rule]).left_out["R"]
