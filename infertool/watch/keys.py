"""The actions of the view, with their keys, footer labels and meanings; the help screen lists them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from infertool.errors import SettingsError
from infertool.text.input import did_you_mean

_NAMED = (
    r"space|enter|tab|escape|backspace|delete|insert|home|end|pageup|pagedown|up|down|left|right|"
    r"f([1-9]|1[0-9]|2[0-4])"
)
_KEY = re.compile(rf"((ctrl|shift|alt)\+)*({_NAMED}|[^\s,])")
_SIGNS = {"space": "space", "pageup": "page up", "pagedown": "page down", "escape": "esc"}


@dataclass(frozen=True, slots=True)
class Action:
    """An action that keys trigger. `label` is set if the footer shows it."""

    name: str
    keys: tuple[str, ...]
    meaning: str
    label: str = ""


ACTIONS = (
    Action("pause", ("space",), "hold the view still; events are counted and kept meanwhile", "Pause"),
    Action("filter", ("/",), "filter both lists by an expression, as tail --where does", "Filter"),
    Action("detail", ("enter",), "open the selected event, or close it", "Open"),
    Action("follow", ("f",), "stay at the first row, or on the selected one", "Follow"),
    Action("sort", ("s",), "sort results: newest, slowest, least confident, by class", "Sort"),
    Action("next_pane", ("tab",), "next pane", "Pane"),
    Action("previous_pane", ("shift+tab",), "previous pane"),
    Action("replay", ("r",), "replay the selected failure's dead letter; asks first", "Replay"),
    Action("export", ("e",), "write this pane's list to a file of JSON lines"),
    Action("copy", ("c",), "copy the selected event as JSON, also over ssh (OSC 52)"),
    Action("trace", ("o",), "open the selected event's trace (telemetry.trace_url)"),
    Action("next_bus", ("b",), "show the next bus (watch --bus A --bus B)"),
    Action("theme", ("t",), "dark or light"),
    Action("palette", (":", "ctrl+p"), "command palette: every action by name"),
    Action("help", ("?",), "this help", "Help"),
    Action("quit", ("q",), "leave; ctrl+c leaves from everywhere", "Quit"),
    Action("up", ("up", "k"), "one row up"),
    Action("down", ("down", "j"), "one row down"),
    Action("page_up", ("pageup",), "one page up"),
    Action("page_down", ("pagedown",), "one page down"),
    Action("first", ("home", "g"), "to the first row"),
    Action("last", ("end", "G"), "to the last row"),
    Action("back", ("escape",), "close the detail, or end the filter"),
)
_BY_NAME = {action.name: action for action in ACTIONS}


def resolve(wanted: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    """Return the keys of every action: the defaults, or those in `wanted`, the settings `watch.keys`.

    A value is one key or a list of keys. Raises `SettingsError` for an unknown action or key, and for a key with two
    actions.
    """
    chosen = {action.name: action.keys for action in ACTIONS}
    for name, value in wanted.items():
        if name not in _BY_NAME:
            advice = did_you_mean(name, _BY_NAME) or f"known: {', '.join(_BY_NAME)}"
            raise SettingsError(f"watch.keys.{name}: there is no such action", key=f"watch.keys.{name}", advice=advice)
        chosen[name] = tuple(_key(name, each) for each in (value if isinstance(value, list) else [value]))
    _check_unique(chosen)
    return chosen


def _key(name: str, value: object) -> str:
    if isinstance(value, str) and _KEY.fullmatch(value):
        return value
    key = f"watch.keys.{name}"
    raise SettingsError(f"{key}: {value!r} is no key", key=key, advice='write for example "p", "f5" or "ctrl+r"')


def shown(key: str) -> str:
    """Return a key's name for display."""
    return _SIGNS.get(key, key.replace("ctrl+", "^"))


def _check_unique(chosen: Mapping[str, tuple[str, ...]]) -> None:
    owners: dict[str, str] = {}
    for name, keys in chosen.items():
        for key in keys:
            if key in owners:
                what = f"watch.keys: {key!r} is the key of both {owners[key]} and {name}"
                raise SettingsError(what, key=f"watch.keys.{name}", advice="give one of them another key")
            owners[key] = name
