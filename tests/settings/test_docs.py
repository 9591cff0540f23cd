"""The examples of docs/settings.md are valid, and the errors in it are the real ones."""

from __future__ import annotations

import re
from pathlib import Path

from infertool.settings.load import ALIASES
from tests.settings.test_load import empty_folder, refusal, settings

__all__ = ["empty_folder"]

TEXT = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()


def test_the_example_loads() -> None:
    example = re.search(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    assert example
    assert settings(example[1]).settings.consume.concurrency == 8
    loaded = settings(example[1].replace("/run/secrets/activemq", "my.toml"), profile="production")
    assert loaded.settings.consume.concurrency == 64
    assert loaded.settings.broker.password.reveal() == "[broker]"


def test_the_errors_are_real() -> None:
    given = [
        refusal("[broker]\n\nurll = 1"),
        refusal(environ={"INFERTOOL_BROKER_URL": "x"}),
        refusal("[consume]\n\n\n\n\n\nmax_attempts = 0"),
    ]
    for error in given:
        assert str(error).replace("my.toml", "infertool.toml") in TEXT


def test_every_alias_is_named() -> None:
    assert all(name in TEXT for name in ALIASES)
