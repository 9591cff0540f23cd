"""`infertool alerts`: check, test and export, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infertool.alerts import scenarios
from infertool.alerts.rule import parse_rules
from infertool.alerts.shipped import SHIPPED
from infertool.alerts.state import State
from infertool.errors import UsageError
from tests.support.running import infertool

DOCS = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text()
RULES = parse_rules([], SHIPPED, "")
GOOD = """
[[tests]]
name = "a backlog"
interval = "30s"
[tests.series]
"queue.depth" = "0 1500x5 700 _ 500"
[tests.expect]
"1m" = {Backlog = "pending"}
"2m45s" = {Backlog = "firing"}
"2m30s" = {Backlog = "firing"}
"4m20s" = {Backlog = "resolved"}
"1h" = {Backlog = "nodata"}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "t.toml"
    path.write_text(text)
    return path


def test_a_series_is_written_as_in_prometheus(tmp_path: Path) -> None:
    text = """
[[tests]]
[tests.series]
"queue.depth" = "1 2x2 3+1x2 9-2x1 _ _x2 5"
"rate.settled" = "1.5+0.5x1 -2e1"
"progress.stuck" = "true falsex1"
"model.circuit" = ["open", "closed"]
[tests.expect]
"0s" = {Backlog = "nodata"}
"""
    (scenario,) = scenarios.read(written(tmp_path, text), RULES)
    assert scenario.series["queue.depth"] == [1, 2, 2, 2, 3, 4, 5, 9, 7, None, None, None, 5]
    assert scenario.series["rate.settled"] == [1.5, 2.0, -20.0]
    assert scenario.series["progress.stuck"] == [True, False, False]
    assert scenario.interval_s == 1.0


def test_expected_states_are_compared_at_their_times(tmp_path: Path) -> None:
    (scenario,) = scenarios.read(written(tmp_path, GOOD), RULES)
    assert scenarios.run(scenario, RULES) == [scenarios.Mismatch(260.0, "Backlog", State.RESOLVED, State.FIRING)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("queue.depth", "queue.dept"), "test a backlog: there is no field queue.dept; did you mean 'queue.depth'?"),
        (("Backlog", "Backlg"), "there is no rule Backlg; did you mean 'Backlog'?"),
        (('"pending"', '"waiting"'), "Backlog cannot be waiting; states: inactive, pending"),
        (('"1m"', '"1 m"'), "'1 m' is not a duration"),
        (('"30s"', '"0s"'), "interval must be more than 0"),
        (("0 1500x5", "0 1500y5"), "1500y5 in the series of queue.depth is no sample"),
        (("0 1500x5", "0 1.5"), "1.5 is no value of queue.depth; it takes int"),
        (("0 1500x5", "0x99999999999999999999"), "a series has at most 1000000 samples"),
        (('"0 1500x5 700 _ 500"', "5"), "the series of queue.depth is neither a list nor text"),
        (('"1h" =', '"99999h" ='), "it lasts longer than 1000000 intervals"),
        (("interval =", "intervall ="), "there is no key intervall; did you mean 'interval'?"),
        (("[tests.expect]", "[tests.expected]"), "there is no key expected; did you mean 'expect'?"),
        (("[[tests]]", "[[test]]"), "is no file of tests"),
        (("[[tests]]", "[[tests]"), "is not TOML"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    path = written(tmp_path, GOOD.replace(*change))
    with pytest.raises(UsageError) as caught:
        scenarios.read(path, RULES)
    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)


def test_the_commands(tmp_path: Path) -> None:
    config = tmp_path / "infertool.toml"
    config.write_text('[[alerts]]\nname = "Mine"\nwhen = "dlq.depth > 0"\nsinks = ["webhook"]\n')
    given = ("--config", str(config), "alerts")
    checked = infertool(*given, "check", "-o", "json")
    assert [rule["name"] for rule in json.loads(checked.stdout)] == [*(rule.name for rule in RULES), "Mine"]
    assert checked.stderr == "note: Mine names sinks that are not configured: webhook\n"

    example = DOCS.split("```toml\n[[tests]]")[1].split("```")[0]
    tests = written(tmp_path, f"[[tests]]{example}")
    done = infertool(*given, "test", str(tests))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ok")
    tests.write_text(tests.read_text().replace('"resolved"', '"inactive"'))
    failed = infertool(*given, "test", str(tests), "-o", "json")
    assert failed.returncode == 1
    (result,) = json.loads(failed.stdout)
    assert result["mismatches"][0]["found"] == "resolved"

    exported = infertool(*given, "export", "--prometheus")
    assert "- alert: Mine" in exported.stdout
    assert "- alert: NoProgress" in exported.stdout

    config.write_text('[[alerts]]\nname = "Backlog"\nwhen = "queue.dept > 1000"\n')
    wrong = infertool(*given, "check")
    assert wrong.returncode == 2
    # The error of docs/alerts.md.
    shown = wrong.stderr.replace(str(tmp_path) + "/", "").splitlines()
    assert all(f"    {line}" in DOCS.replace("toml:9", "toml:1") for line in shown), shown
