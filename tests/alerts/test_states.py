"""The states of rules: `for`, hysteresis, `keep_firing_for`, missing data, restarts, inhibition and silences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infertool.alerts import store
from infertool.alerts.engine import Engine
from infertool.alerts.rule import parse_rules
from infertool.alerts.shipped import SHIPPED

RULE = {"name": "R", "when": "queue.depth > 10", "for": "20s"}
HYSTERESIS = {**RULE, "clear": "queue.depth < 5"}
KEPT = {**RULE, "keep_firing_for": "20s"}


def engine(*tables: dict[str, Any]) -> Engine:
    return Engine(parse_rules(tables, [], "my.toml"))


# A value every ten seconds; None is missing data. i, p, f, r, n: the states, as they follow.
@pytest.mark.parametrize(
    ("rule", "series", "states"),
    [
        (RULE, [1, 11, 11, 11, 1, 1], "ippfrr"),
        (RULE, [11, 11, 9, 11, 11, 11], "ppippf"),
        ({**RULE, "for": "0s"}, [11, 10, 11], "frf"),
        (RULE, [11, 11, 11, None, None, 11, 10], "ppffffr"),
        (RULE, [None, 1, None, 11, 11, 11], "ninppf"),
        (RULE, [11, None, 11, 11, None, None], "ppffff"),
        (RULE, [11, None, None, None, 11, 11, 11], "pppnppf"),
        (RULE, [11, 11, 11, None, 1, None], "ppffrn"),
        (HYSTERESIS, [11, 11, 11, 9, 5, 4, 9], "ppfffrr"),
        (HYSTERESIS, [11, 11, 11, 9, None, 4], "ppfffr"),
        (KEPT, [11, 11, 11, 1, 1, 1], "ppfffr"),
        (KEPT, [11, 11, 11, 1, 11, 1, 1, 1], "ppfffffr"),
        (KEPT, [11, 11, 11, 1, None, None, 1], "ppffffr"),
        ({**RULE, "when": "100 / queue.depth < 10"}, [11, 0, 11, 0, 0, 0, 5], "ppffffr"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("restarts", [False, True])
def test_states_follow_the_series(
    tmp_path: Path, rule: dict[str, Any], series: list[int | None], states: str, restarts: bool
) -> None:
    running = engine(rule)
    found = ""
    for number, value in enumerate(series):
        # The clock of a new process begins anywhere.
        now, wall = (1000.0 * number, 5e9 + 10.0 * number) if restarts else (10.0 * number, 5e9)
        if restarts:
            running = engine(rule)
            assert store.restore(tmp_path / "states.json", running, now, wall) == ""
        running.evaluate({"queue.depth": value}, now, wall)
        found += running.states["R"].state[0]
        store.save(tmp_path / "states.json", running, now, wall)
    assert found == states


def test_a_resolved_rule_is_shown_for_a_while() -> None:
    running = engine({**RULE, "for": "0s"})
    for now, value in ((0.0, 11), (1.0, 1), (300.0, 1)):
        running.evaluate({"queue.depth": value}, now, 0.0)
        assert running.states["R"].state == ("firing" if value == 11 else "resolved")
    running.evaluate({"queue.depth": 1}, 301.0, 0.0)
    assert running.states["R"].state == "inactive"


def test_a_rule_is_told_once_and_resolved_once_also_across_a_restart(tmp_path: Path) -> None:
    values: dict[str, int | str] = {"queue.depth": 11, "queue.name": "q", "consumer": "c"}
    running = engine({**RULE, "for": "0s", "summary": "{value} above {threshold}", "severity": "page"})
    (told,) = running.evaluate(values, 100.0, 5000.0)
    assert (told.rule, told.state, told.severity, told.value, told.threshold) == ("R", "firing", "page", 11, 10)
    assert (told.since, told.summary, told.labels) == (5000.0, "11 above 10", {"queue": "q", "consumer": "c"})
    assert running.evaluate(values, 101.0, 5001.0) == []
    store.save(tmp_path / "s.json", running, 101.0, 5001.0)

    again = engine({**RULE, "for": "0s"})
    # An hour later, on a machine whose clock was set back.
    assert store.restore(tmp_path / "s.json", again, 7.0, 4000.0) == ""
    assert again.evaluate({}, 7.0, 4000.0) == []
    assert again.shown(7.0, 4000.0)[0].state == "firing"
    (told,) = again.evaluate({"queue.depth": 1}, 8.0, 4001.0)
    assert (told.state, told.since) == ("resolved", 4001.0)
    assert again.evaluate({"queue.depth": 1}, 9.0, 4002.0) == []


def test_a_clock_that_jumps_changes_no_duration() -> None:
    running = engine(RULE)
    walls = iter([5000.0, 9e9, 3.0, 5003.0])
    found = [running.evaluate({"queue.depth": 11}, now, next(walls)) for now in (0.0, 10.0, 19.9)]
    assert found == [[], [], []]
    (told,) = running.evaluate({"queue.depth": 11}, 20.0, next(walls))
    assert told.since == 5003.0


def test_a_pending_rule_begins_anew_after_a_long_absence(tmp_path: Path) -> None:
    running = engine(RULE)
    running.evaluate({"queue.depth": 11}, 0.0, 1000.0)
    store.save(tmp_path / "s.json", running, 0.0, 1000.0)
    for absence, state in ((30.0, "firing"), (9000.0, "pending")):
        again = engine(RULE)
        store.restore(tmp_path / "s.json", again, 5.0, 1000.0 + absence)
        again.evaluate({"queue.depth": 11}, 5.0, 1000.0 + absence)
        assert again.states["R"].state == state


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"saved": 1, "rules": {"R": {}}, "silences": {}}', '{"saved": "x"}']
)
def test_a_damaged_file_is_reported_and_left(tmp_path: Path, content: str) -> None:
    (tmp_path / "s.json").write_text(content)
    running = engine(RULE)
    assert store.restore(tmp_path / "s.json", running, 0.0, 0.0)
    assert running.states["R"].state == "inactive"
    store.save(tmp_path / "s.json", running, 0.0, 0.0)
    assert store.restore(tmp_path / "s.json", running, 0.0, 0.0) == ""
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]


def test_a_lost_connection_inhibits_backlog_and_no_progress() -> None:
    running = Engine(
        parse_rules([{"name": "Backlog", "for": "0s"}, {"name": "ConnectionDown", "for": "0s"}], SHIPPED, "")
    )
    bad = {"queue.depth": 5000, "progress.stuck": True, "connections.broker.up": False}
    assert [told.rule for told in running.evaluate(bad, 0.0, 0.0)] == ["ConnectionDown"]
    assert running.states["Backlog"].state == "firing"
    told = running.evaluate({**bad, "connections.broker.up": True}, 1.0, 1.0)
    assert {(each.rule, each.state) for each in told} == {
        ("ConnectionDown", "resolved"), ("NoProgress", "firing"), ("Backlog", "firing"),
    }  # fmt: skip
    # What was told is resolved even while it is inhibited.
    running.evaluate(bad, 2.0, 2.0)
    told = running.evaluate({**bad, "queue.depth": 1}, 3.0, 3.0)
    assert [(each.rule, each.state) for each in told] == [("Backlog", "resolved")]


def test_labels_are_bounded_and_can_be_encoded() -> None:
    running = engine({**RULE, "for": "0s"})
    (told,) = running.evaluate({"queue.depth": 11, "queue.name": '"\n\ud800' + "x" * 10_000}, 0.0, 0.0)
    assert told.labels["queue"].startswith('"\n?x')
    assert len(told.labels["queue"]) == 200


def test_no_progress_fires_at_once_and_is_resolved() -> None:
    running = Engine(parse_rules([], SHIPPED, ""))
    story = [False, True, True, None, False]
    told = [running.evaluate({"progress.stuck": stuck}, float(now), float(now)) for now, stuck in enumerate(story)]
    assert [[(each.rule, each.state) for each in some] for some in told] == [
        [], [("NoProgress", "firing")], [], [], [("NoProgress", "resolved")],
    ]  # fmt: skip


def test_a_silenced_rule_is_told_when_the_silence_ends(tmp_path: Path) -> None:
    running = engine({**RULE, "for": "0s"})
    running.silences["R"] = 60.0
    assert running.evaluate({"queue.depth": 11}, 10.0, 10.0) == []
    store.save(tmp_path / "s.json", running, 10.0, 10.0)
    again = engine({**RULE, "for": "0s"})
    store.restore(tmp_path / "s.json", again, 1000.0, 30.0)
    assert again.evaluate({"queue.depth": 11}, 1029.0, 59.0) == []
    assert [told.since for told in again.evaluate({"queue.depth": 11}, 1030.0, 60.0)] == [10.0]
