"""Any settings file, and any environment, is settings that can be shown, or an error that names the key or the file."""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from infertool.errors import SettingsError
from infertool.settings.display import as_toml
from infertool.settings.keys import types, variable
from infertool.settings.load import Loaded, anchored, dump, load
from tests.support.examples import examples

_numbers = itertools.count()
KEYS = st.sampled_from([*types()])
VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
    | st.sampled_from([
        10**400, "\0", "~no-such-user", "~", "/dev/null", "/", "http://[", "stomp://a:1,b", "1h", "auto", "1" * 5000,
        "-1",
        "9" * 400 + "/s", "a=8,b=x", "../" * 50, "x" * 5000,
    ]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab\n"', max_size=3), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip
LINES = st.one_of(
    st.tuples(KEYS, VALUES).map(lambda pair: f"{pair[0]} = {written(pair[1])}"),
    st.tuples(KEYS, VALUES).map(lambda pair: f"profile.p.{pair[0]} = {written(pair[1])}"),
    st.tuples(st.sampled_from(["[[alerts]]\nname", "alerts", "broker", "profile", "profile.p.alerts"]), VALUES).map(
        lambda pair: f"{pair[0]} = {written(pair[1])}"
    ),
    st.text(max_size=8),
)
PROFILES = st.sampled_from([None, "p"])
OTHERS = ["a = " + "[" * 5000, "a" + ".a" * 5000 + " = 1", "\ufeff", "a = 1979-05-27", "[broker]\nurl = 00:00:00"]


def written(value: object) -> str:
    """Return a value as TOML; JSON has no `nan`, and TOML no number of any length."""
    return dump(value).replace("NaN", "nan").replace("Infinity", "inf")


def loaded(path: Path, environ: Mapping[str, str], profile: str | None) -> Loaded | None:
    """Return what is loaded; None after an error that is one line and names a key or the file."""
    try:
        found = load(config=path, profile=profile, environ=environ, flags={})
    except SettingsError as fault:
        assert fault.key or str(path) in str(fault), fault  # noqa: PT017
        return None
    anchored(found.settings)
    tomllib.loads(as_toml(found))
    return found


def file(folder: pytest.TempPathFactory, data: bytes) -> Path:
    path = folder.getbasetemp() / f"any-{next(_numbers)}.toml"
    path.write_bytes(data)
    return path


@examples(40)
@given(
    lines=st.lists(LINES, max_size=3) | st.sampled_from([[text] for text in OTHERS]),
    profile=st.sampled_from([None, "p"]),
)
@example([OTHERS[0]], None)
@example([OTHERS[1]], None)
@example(['broker.password_file = "\\u0000"'], None)
@example(["broker.heartbeat_s = 1" + "0" * 400], None)
def test_any_file_is_settings_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], profile: str | None
) -> None:
    path = file(tmp_path_factory, "\n".join(lines).encode("utf-8", "surrogatepass"))
    loaded(path, {}, profile)
    path.unlink()


@examples(40)
@given(key=KEYS, value=VALUES.map(lambda value: value if isinstance(value, str) else json.dumps(value)))
@example("broker.password_file", "a\udcff")
@example("gateway.state_dir", "~no-such-user")
def test_any_variable_is_settings_or_an_error(tmp_path_factory: pytest.TempPathFactory, key: str, value: str) -> None:
    path = file(tmp_path_factory, b"")
    loaded(path, {variable(key): value}, None)
    path.unlink()
