"""The written settings file, the line numbers, and the values that may be shown."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from infertool.secret import MASK
from infertool.settings import Settings
from infertool.settings.display import as_toml, init_text, meanings, rows
from infertool.settings.keys import flatten, types
from infertool.settings.load import dump, line_numbers
from tests.settings.test_load import empty_folder, settings

__all__ = ["empty_folder"]


def uncommented() -> str:
    return re.sub(r"(?m)^#(?=[\[\w])", "", init_text())


def test_the_written_file_changes_nothing() -> None:
    assert settings(init_text()).settings == Settings()


def test_uncommented_it_sets_every_key_to_its_default() -> None:
    loaded = settings(uncommented())
    assert loaded.settings == Settings()
    assert all(origin.startswith("my.toml:") for origin in loaded.origins.values())
    assert (
        settings(
            uncommented().replace("/run/secrets/activemq", "my.toml"), profile="production"
        ).settings.consume.concurrency
        == 64
    )


def test_every_key_has_a_meaning_and_every_line_fits() -> None:
    assert meanings().keys() == types().keys()
    assert all(len(line) <= 120 for line in init_text().splitlines())


def test_origins_name_the_line_on_which_the_key_stands() -> None:
    lines = uncommented().splitlines()
    loaded = settings(uncommented())
    for key, origin in loaded.origins.items():
        assert lines[int(origin.partition(":")[2]) - 1].startswith(key.partition(".")[2])


def test_line_numbers() -> None:
    text = 'a = 1\n"b" . c = 2\n\n[ t."x" ] # note\nd=3\n[[many]]\n'
    assert line_numbers(text) == {"a": 1, "b.c": 2, "t.x": 4, "t.x.d": 5, "many": 6}


@pytest.mark.parametrize(
    "value", ['a"b\\c\né\x00\x7f', True, False, 0, -1.5, [], ["a", 1], {}, {"a b": {"c": [False]}}]
)
def test_values_written_as_toml_are_read_back(value: str) -> None:
    assert tomllib.loads(f"x = {dump(value)}")["x"] == value


def test_dates_in_join_params_are_written_back() -> None:
    params = settings("phoenix.join_params = {day = 2026-01-02}").settings.phoenix.join_params
    assert dump(params) == '{"day" = 2026-01-02}'


S = "s3cret"
SECRETS = f"""\
[broker]
url = "stomp://u:{S}@h:1"
password = "{S}"
[model]
spec = "https://u:{S}@h/predict?api_key={S}"
token = "{S}"
[phoenix]
url = "ws://h/s?token={S}"
token = "{S}"
join_params = {{token = "{S}", list = [{{password = "{S}"}}], room = "a"}}
"""


def test_what_is_shown_holds_no_secret() -> None:
    loaded = settings(SECRETS)
    shown = {row.key: row.value for row in rows(loaded)}
    assert S not in repr(shown) + as_toml(loaded) + repr(loaded)
    assert shown["broker.url"] == f"stomp://u:{MASK}@h:1"
    assert shown["model.spec"] == f"https://u:{MASK}@h/predict?api_key={MASK}"
    assert shown["phoenix.join_params"] == {"token": MASK, "list": [{"password": MASK}], "room": "a"}


def test_shown_as_toml_it_loads_again_without_the_secrets() -> None:
    text = as_toml(settings(SECRETS))
    assert flatten(settings(text).settings) == flatten(Settings())
    assert f'# password = "{MASK}"' in text


def test_the_tree_loads_neither_msgspec_nor_tomllib() -> None:
    code = "import sys, infertool.settings; sys.exit(bool({'msgspec', 'tomllib', 'difflib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], timeout=60).returncode == 0
