"""The keys: the defaults, and those in the settings."""

from __future__ import annotations

from typing import Any

import pytest

from infertool.errors import SettingsError
from infertool.watch.keys import ACTIONS, resolve
from infertool.watch.screen import Main


def test_every_action_has_one_meaning_and_is_done_by_the_screen() -> None:
    keys = [key for action in ACTIONS for key in action.keys]
    assert len(keys) == len(set(keys))
    assert all(callable(getattr(Main, f"action_{action.name}")) for action in ACTIONS)


def test_the_settings_can_move_a_key_and_give_it_to_another_action() -> None:
    chosen = resolve({"pause": "p", "quit": ["x", "ctrl+x"], "export": "q"})
    assert (chosen["pause"], chosen["quit"], chosen["export"]) == (("p",), ("x", "ctrl+x"), ("q",))
    assert chosen["filter"] == ("/",)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"pauze": "p"}, "did you mean 'pause'"),
        ({"pause": "spaace"}, "'spaace' is no key"),
        ({"pause": 5}, "5 is no key"),
        ({"pause": [""]}, "'' is no key"),
        ({"pause": "q"}, "'q' is the key of both pause and quit"),
    ],
)
def test_what_cannot_be_is_named(wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve(wanted)
    assert said in str(caught.value)
