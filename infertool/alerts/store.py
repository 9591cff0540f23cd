"""The states of rules on disk, so that a restart neither resolves a firing rule nor tells it a second time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from infertool.alerts.condition import Measure
from infertool.alerts.engine import Engine
from infertool.alerts.rule import Rule
from infertool.alerts.state import RuleState, State

# A pending rule begins anew after a longer absence: nobody knows what was in between. Seconds.
_LONGEST_ABSENCE_S: Final = 3600.0


# By sink, the rules that it has not been told of yet.
Untold = Mapping[str, Iterable[str]]


def save(path: Path, engine: Engine, now: float, wall: float, untold: Untold = MappingProxyType({})) -> None:
    """Write the states to `path`: the old file or the new one is there, never a part. Raises `OSError`."""
    content = {
        "saved": wall,
        "rules": {name: _saved(state, now) for name, state in engine.states.items()},
        "silences": {name: until - now for name, until in engine.silences.items() if until > now},
        "untold": {sink: sorted(names) for sink, names in untold.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}.new")
    try:
        with beside.open("w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def restore(path: Path, engine: Engine, now: float, wall: float) -> str:
    """Give the rules of `engine` their saved states. Return why a file could not be used, else "".

    Between two runs there is only the clock on the wall: what it says of the absence counts, but never less than 0.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        absence = max(0.0, wall - float(content["saved"]))
        silences = {str(name): now + float(rest) - absence for name, rest in content["silences"].items()}
        rules = content["rules"]
        untold = {str(sink): frozenset(map(str, names)) for sink, names in content.get("untold", {}).items()}
        states = {
            name: _restored(old.rule, rules[name], now, absence) for name, old in engine.states.items() if name in rules
        }
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"
    engine.states.update(states)
    engine.silences.update(silences)
    engine.untold = untold
    return ""


_TIMES: Final = ("since", "clear_since", "unknown_since")


def _saved(state: RuleState, now: float) -> dict[str, Any]:
    times = {name: getattr(state, name) for name in _TIMES}
    return {
        "state": str(state.state),
        "measure": [state.measure.value, state.measure.threshold] if state.measure else None,
        "notified": state.notified,
        "ages": {name: None if time is None else now - time for name, time in times.items()},
    }


def _restored(rule: Rule, saved: dict[str, Any], now: float, absence: float) -> RuleState:
    state = State(saved["state"])
    times = {name: None if age is None else now - float(age) - absence for name, age in saved["ages"].items()}
    if state is State.PENDING and absence > _LONGEST_ABSENCE_S:
        return RuleState(rule, since=now)
    return RuleState(
        rule,
        state,
        now if times["since"] is None else times["since"],
        Measure(*map(float, saved["measure"])) if saved["measure"] else None,
        notified=bool(saved["notified"]),
        clear_since=times["clear_since"],
        unknown_since=times["unknown_since"],
    )
