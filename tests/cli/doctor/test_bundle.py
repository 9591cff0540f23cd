"""The bundle holds what a bug report needs, and no secret: a distinct one is put into each place that takes one."""

from __future__ import annotations

import json
import stat
import zipfile
from _collections_abc import dict_values
from pathlib import Path
from typing import Any
from urllib.parse import quote

from infertool.secret import Secret
from infertool.settings.keys import types, variable
from infertool.settings.load import ALIASES
from infertool.settings.secrets import FILES
from tests.support.embedded import EmbeddedBroker
from tests.support.running import infertool

NUMBERS = iter(range(1000))


def secret() -> str:
    """Return a secret that stands nowhere else, with characters that are escaped in URLs and JSON."""
    return f'Hush"{next(NUMBERS):03}/Sec\\ret'


def traces(texts: dict_values[str, str] | list[Any]) -> set[Any]:
    return {form for text in texts for form in (text, quote(text, safe=""), json.dumps(text)[1:-1], text[5:8] + "/Sec")}


def test_no_secret_is_in_the_bundle_or_the_output(tmp_path: Path, embedded_broker: EmbeddedBroker) -> None:
    hidden = {}

    def hide(name: str) -> str:
        hidden[name] = secret()
        return hidden[name]

    secret_keys = [key for key, hint in types().items() if hint is Secret]
    assert set(secret_keys) == set(FILES)
    env = {variable(key): hide(key) for key in secret_keys if key != "to_broker.password"}
    file = tmp_path / "password"
    file.write_text(hide("a file") + "\n")
    env[variable("to_broker.password_file")] = str(file)
    env |= {name: hide(name) for name in ALIASES if "USER" not in name}
    env |= {name: hide(name) for name in ("AWS_SECRET_ACCESS_KEY", "MY_TOKEN", "DATABASE_PASSWORD", "GITHUB_AUTH")}
    env["DATABASE_URL"] = f"postgres://me:{quote(hide('a foreign URL'), safe='')}@db/x"
    env[variable("broker.url")] = (
        f"stomp://me:{quote(hide('broker URL'), safe='')}@127.0.0.1:1,127.0.0.1:{embedded_broker.stomp_port}"
    )
    user, key = quote(hide("phoenix URL"), safe=""), quote(hide("key"), safe="")
    env[variable("phoenix.url")] = f"ws://me:{user}@127.0.0.1:1/socket/websocket?api_key={key}"
    env[variable("phoenix.join_params")] = json.dumps({"room_token": hide("join"), "room": "a"})
    env[variable("alerting.webhook_url")] = f"http://127.0.0.1:1/services/{quote(hide('webhook path'), safe='')}"
    env[variable("model.spec")] = f"http://me:{quote(hide('model URL'), safe='')}@127.0.0.1:1/predict"
    bundle = tmp_path / "report.zip"
    done = infertool("doctor", "--bundle", str(bundle), "--debug", XDG_CONFIG_HOME=str(tmp_path), **env)
    assert done.returncode == 1, done.stderr
    assert f"wrote {bundle}" in done.stderr
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
    with zipfile.ZipFile(bundle) as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist()}
    shown = done.stdout + done.stderr + "".join(parts.values())
    assert len(hidden) > 14
    assert [text for text in traces(hidden.values()) if text in shown] == []
    settings = json.loads(parts["settings.json"])
    assert settings["broker.password"] == {"value": "********", "origin": variable("broker.password")}
    assert settings["broker.heartbeat_s"] == {"value": 10.0, "origin": "default"}
    assert "MY_TOKEN" in json.loads(parts["environment.json"])
    assert json.loads(parts["versions.json"])["packages"]["stomp.py"]
    results = json.loads(parts["results.json"])
    assert "fail" in {result["finding"]["status"] for result in results}


def test_settings_that_cannot_be_loaded_leave_a_bundle_without_secrets(tmp_path: Path) -> None:
    url, token = secret(), secret()
    env = {variable("broker.url"): f"stomp://me:{url}@host", variable("phoenix.token"): token}
    bundle = tmp_path / "report.zip"
    done = infertool("doctor", "--bundle", str(bundle), **env)
    assert done.returncode == 1
    with zipfile.ZipFile(bundle) as archive:
        shown = done.stdout + done.stderr + "".join(archive.read(name).decode() for name in archive.namelist())
    assert [text for text in traces([url, token]) if text in shown] == []
    assert "broker.url" in shown
