"""The jobs of `infertool alerts`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from infertool.alerts import promql, scenarios
from infertool.alerts.rule import Rule
from infertool.alerts.settings import configured_sinks, rules_of
from infertool.alerts.state import State
from infertool.app.backtest import Change, run
from infertool.cli.common import console
from infertool.errors import InfertoolError
from infertool.settings.load import RULES_KEY, Loaded
from infertool.text.sanitize import aligned, clean


def check(loaded: Loaded, *, as_json: bool) -> None:
    """Show the rules that apply. Raises `InfertoolError` for the first that cannot be used."""
    rules = _rules(loaded)
    configured = configured_sinks(loaded.settings)
    if as_json:
        console.emit_json([_fields(rule) for rule in rules])
    else:
        header = ["rule", "severity", "for", "sinks", "when"]
        console.out(*aligned([header, *(_row(rule, configured) for rule in rules)]))
    for rule in rules:
        if missing := [sink for sink in rule.sinks if sink not in configured]:
            console.err(f"note: {rule.name} names sinks that are not configured: {', '.join(missing)}")


def _row(rule: Rule, configured: Sequence[str]) -> list[str]:
    sinks = ",".join(rule.sinks or configured) or "-"
    return [rule.name, rule.severity, f"{rule.for_s:g}s", sinks if rule.enabled else "off", clean(rule.when.text)]


def _fields(rule: Rule) -> dict[str, object]:
    return {
        "name": rule.name,
        "enabled": rule.enabled,
        "when": rule.when.text,
        "clear": rule.clear.text if rule.clear else None,
        "for_s": rule.for_s,
        "keep_firing_for_s": rule.keep_firing_for_s,
        "severity": rule.severity,
        "sinks": list(rule.sinks),
        "inhibited_by": list(rule.inhibited_by),
        "summary": rule.summary,
    }


def run_tests(loaded: Loaded, files: Sequence[Path], *, as_json: bool) -> None:
    """Run the tests in `files`, and print a line for each. Raises `InfertoolError` if a state is another."""
    rules = _rules(loaded)
    found = [
        (file, scenario, scenarios.run(scenario, rules)) for file in files for scenario in scenarios.read(file, rules)
    ]
    if as_json:
        console.emit_json([_result(*each) for each in found])
    else:
        for file, scenario, mismatches in found:
            console.out(clean(f"{'FAIL' if mismatches else 'ok':4}  {file}: {scenario.name}"))
            console.out(
                *(f"      at {each.at:g}s {each.rule} is {each.found}, not {each.expected}" for each in mismatches)
            )
    failed = sum(bool(mismatches) for _, _, mismatches in found)
    if failed:
        raise InfertoolError(f"{failed} of {len(found)} tests failed")


def _result(file: Path, scenario: scenarios.Scenario, mismatches: list[scenarios.Mismatch]) -> dict[str, object]:
    wrong = [
        {"at_s": each.at, "rule": each.rule, "expected": str(each.expected), "found": str(each.found)}
        for each in mismatches
    ]
    return {"file": str(file), "test": scenario.name, "ok": not mismatches, "mismatches": wrong}


def export(loaded: Loaded) -> None:
    """Print the rules as a file of Prometheus' rules."""
    exported = promql.export(_rules(loaded))
    console.out_data(*exported.text.split("\n"))
    for name, reason in exported.left_out.items():
        console.err(f"{name} is left out: {reason}")


def backtest(loaded: Loaded, file: Path, *, as_json: bool) -> None:
    """Print what the rules would have done on a recorded run."""
    outcome = run(file, _rules(loaded))
    if as_json:
        console.emit_json(
            {
                "seconds": outcome.seconds,
                "tried": outcome.tried,
                "changes": [{**asdict(change), "state": str(change.state)} for change in outcome.changes],
                "untried": {name: list(paths) for name, paths in outcome.untried.items()},
            }
        )
        return
    rows = [["after", "time", "rule", "state", "summary"]]
    rows += [[clean(cell) for cell in _change(change)] for change in outcome.changes]
    if outcome.changes:
        console.out(*aligned(rows))
    fired = len({change.rule for change in outcome.changes if change.state is State.FIRING})
    console.err(f"{fired} of {outcome.tried} rules would have fired in {outcome.seconds} s")
    for name, paths in outcome.untried.items():
        console.err(f"{name} was not tried: the record does not tell {', '.join(paths)}")


def _change(change: Change) -> list[str]:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(change.at))
    return [f"{change.after_s:.0f}s", at, change.rule, str(change.state), change.summary]


def _rules(loaded: Loaded) -> list[Rule]:
    return rules_of(loaded.settings, loaded.origins[RULES_KEY])
