"""Tables [[alerts]] in the settings file and in its profiles."""

from __future__ import annotations

import pytest

from infertool.settings.display import as_toml, rows
from tests.settings.test_load import empty_folder, refusal, settings

__all__ = ["empty_folder"]

TEXT = """
[[alerts]]
name = "Backlog"
when = "queue.depth > 5"

[[alerts]]
name = "Mine"
when = "dlq.depth > 0"

[[profile.production.alerts]]
name = "Backlog"
for = "9m"

[alerting]
alertmanager_url = "http://me:secret@am:9093"
webhook_url = "https://hooks/x?token=abc"
webhook_secret = "whsec_aaaa"
"""


def test_rules_of_the_file_and_of_the_profile_are_in_order() -> None:
    plain, production = settings(TEXT).settings.alerting, settings(TEXT, profile="production").settings.alerting
    assert [rule["name"] for rule in plain.rules] == ["Backlog", "Mine"]
    assert production.rules[2:] == [{"name": "Backlog", "for": "9m"}]


def test_shown_settings_load_again_and_hide_secrets() -> None:
    shown = as_toml(settings(TEXT))
    assert settings(shown).settings.alerting.rules == settings(TEXT).settings.alerting.rules
    values = {row.key: str(row.value) for row in rows(settings(TEXT))}
    for key in ("alertmanager_url", "webhook_url", "webhook_secret"):
        assert "****" in values[f"alerting.{key}"]
    assert not [secret for secret in ("secret@", "abc", "whsec_a") if secret in shown + repr(settings(TEXT).settings)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\n[alerts]\nname = 'x'", "my.toml:2: alerts must be a list of tables; write [[alerts]]"),
        ("alerts = [1]", "my.toml:1: alerts must be a list of tables"),
        ("[[alerts]]\nname = 'A'\n[[alerts]]\nname = 'A'", "my.toml:1: two tables [[alerts]] are named A"),
        ("[profile.p]\nalerts = 3", "my.toml:2: profile.p.alerts must be a list of tables"),
        ("[[alert]]\nname = 'x'", "unknown key alert; did you mean 'alerts'?"),
        ("[alerting]\nrules = 'x'", "my.toml:2: alerting.rules must be a list of tables, not text"),
        ("[alerting]\nwebhook_url = 'ftp://x'", "alerting.webhook_url is 'ftp://x', but must be http://host:port"),
        ("[alerting]\nalertmanager_url = 'http://x:99999'", "with a port from 1 to 65535"),
    ],
)
def test_wrong_tables_are_named(text: str, words: str) -> None:
    assert words in str(refusal(text))
