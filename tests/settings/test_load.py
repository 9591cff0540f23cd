"""The precedence of the layers, and the origin of each value."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from infertool.errors import SettingsError
from infertool.settings import Settings
from infertool.settings.keys import flatten, types, variable
from infertool.settings.load import ALIASES, Loaded, config_candidates, load, state_dir


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(
    toml: str = "",
    *,
    profile: str | None = None,
    environ: dict[str, Any] | None = None,
    flags: dict[str, Any] | None = None,
) -> Loaded:
    config = None
    if toml:
        config = Path("my.toml")
        config.write_text(toml)
    return load(config=config, profile=profile, environ={"HOME": str(Path.cwd()), **(environ or {})}, flags=flags or {})


def refusal(toml: str = "", **given: Any) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        settings(toml, **given)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return caught.value


def test_defaults() -> None:
    loaded = settings()
    assert loaded.settings == Settings()
    assert loaded.files == ()
    assert set(loaded.origins.values()) == {"default"}
    assert loaded.origins.keys() == types().keys()


TOML = """\
[broker]
queue = "/queue/file"
user = "/queue/file"
heartbeat_s = 5

[profile.prod.broker]
user = "from profile"
url = "stomp://profile:1"

[profile.other]
"""


def test_later_layers_win_and_each_value_knows_its_origin() -> None:
    loaded = settings(
        TOML,
        profile="prod",
        environ={"INFERTOOL_BROKER__URL": "stomp://env:1", "INFERTOOL_CONSUME__CONCURRENCY": "3"},
        flags={"consume.concurrency": ("--concurrency", 4)},
    )
    broker = loaded.settings.broker
    assert (broker.queue, broker.user, broker.url) == ("/queue/file", "from profile", "stomp://env:1")
    assert loaded.settings.consume.concurrency == 4
    assert loaded.files == (Path("my.toml"),)
    assert {key: origin for key, origin in loaded.origins.items() if origin != "default"} == {
        "broker.url": "INFERTOOL_BROKER__URL",
        "broker.user": "my.toml:7",
        "broker.queue": "my.toml:2",
        "broker.heartbeat_s": "my.toml:4",
        "consume.concurrency": "--concurrency",
    }


def test_a_whole_number_is_a_number() -> None:
    value = settings(TOML).settings.broker.heartbeat_s
    assert value == 5.0
    assert isinstance(value, float)


def test_the_profile_comes_from_the_environment_unless_the_flag_names_one() -> None:
    chosen = {"INFERTOOL_PROFILE": "prod"}
    assert settings(TOML, environ=chosen).settings.broker.user == "from profile"
    assert settings(TOML, environ=chosen, profile="other").settings.broker.user == "/queue/file"
    assert settings(TOML, environ={"INFERTOOL_PROFILE": ""}).settings.broker.user == "/queue/file"


def test_an_unknown_profile_names_the_nearest_and_all() -> None:
    text = str(refusal(TOML, profile="prodd"))
    assert "no profile prodd; did you mean 'prod'? my.toml has prod, other" in text
    assert "has none" in str(refusal("[broker]", profile="prod"))


def test_a_profile_without_a_file_says_where_files_are_looked_for() -> None:
    assert "looked for infertool.toml, " in str(refusal(profile="prod"))


def test_the_working_folder_comes_before_the_users_folder(tmp_path: Path) -> None:
    home = {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    users = tmp_path / "xdg" / "infertool" / "infertool.toml"
    users.parent.mkdir(parents=True)
    users.write_text('broker.queue = "/queue/user"')
    assert settings(environ=home).settings.broker.queue == "/queue/user"
    assert settings(environ=home).files == (users,)
    Path("infertool.toml").write_text('broker.queue = "/queue/here"')
    assert settings(environ=home).settings.broker.queue == "/queue/here"


def test_where_files_are_looked_for() -> None:
    assert config_candidates({"HOME": "/h"})[1] == Path("/h/.config/infertool/infertool.toml")
    assert config_candidates({"HOME": "/h", "XDG_CONFIG_HOME": "/x"})[1] == Path("/x/infertool/infertool.toml")
    assert state_dir({"HOME": "/h", "XDG_STATE_HOME": "relative"}) == Path("/h/.local/state/infertool")
    assert state_dir({"XDG_STATE_HOME": "/s"}) == Path("/s/infertool")


def test_every_key_can_be_set_by_its_variable() -> None:
    texts = {bool: "false", int: "7", float: "7.5", list[str]: "[]"}
    for key, hint in types().items():
        given = {
            "consume.concurrency": "auto",
            "consume.batch_size": "auto",
            "publish.batch": "auto",
            "broker.url": "stomp://h",
            "broker.queue": "/queue/q",
            "deadletter.queue": "/queue/d",
            "phoenix.url": "ws://h",
            "broker.password_file": "",
            "to_broker.password_file": "",
            "phoenix.token_file": "",
            "model.token_file": "",
            "alerting.rules": "[]",
            "alerting.alertmanager_url": "http://h",
            "alerting.webhook_url": "https://h",
            "alerting.webhook_secret_file": "",
            "gateway.listen": "8080",
            "gateway.rate": "100/s",
            "gateway.failed_credentials": "60/m",
            "serve.listen": "8081",
            "gateway.jwks_url": "https://h",
            "gateway.webhook_secret_file": "",
            "gateway.client_key_file": "",
            "model.cache": "7:7s",
            "gateway.cache": "7:7s",
            "telemetry.trace_url": "http://h/{trace_id}",
            "telemetry.metrics": "9464",
        }
        text = given.get(key) or texts.get(hint) or ("{}" if "dict" in str(hint) else None)
        if text is None:
            text = hint.__args__[-1] if hasattr(hint, "__args__") else "" if key in given else "text"
        loaded = settings(environ={variable(key): text})
        assert loaded.origins[key] == variable(key)
        assert str(flatten(loaded.settings)[key]).lower() in {text, "********"}


@pytest.mark.parametrize("name", ALIASES)
def test_variables_of_other_tools(name: str) -> None:
    key = ALIASES[name]
    assert settings(environ={name: "x"}).origins[key] == name
    assert settings(environ={name: ""}).origins[key] == "default"
    both = settings(environ={name: "x", variable(key): "y"})
    assert both.origins[key] == variable(key)


def test_join_params_from_toml_and_environment() -> None:
    assert settings("[phoenix.join_params]\nroom = 1\nx = {y = [true]}").settings.phoenix.join_params == {
        "room": 1,
        "x": {"y": [True]},
    }
    given = {"INFERTOOL_PHOENIX__JOIN_PARAMS": '{"room": 2}'}
    assert settings(environ=given).settings.phoenix.join_params == {"room": 2}


def test_a_file_with_a_byte_order_mark() -> None:
    Path("infertool.toml").write_bytes(b'\xef\xbb\xbfbroker.queue = "/queue/q"')
    assert settings().settings.broker.queue == "/queue/q"


def test_a_file_that_is_a_pipe_serves_every_load() -> None:
    """As with `--config <(decrypt settings)` for several buses: a pipe is empty the second time."""
    for queue in ("one", "two"):
        read_end, write_end = os.pipe()
        os.write(write_end, f'[profile.a.broker]\nqueue = "{queue}"\n[profile.b.broker]\nqueue = "b"\n'.encode())
        os.close(write_end)
        found = [
            load(config=Path(f"/dev/fd/{read_end}"), profile=profile, environ={}, flags={}).settings.broker.queue
            for profile in ("a", "b", "a")
        ]
        os.close(read_end)
        assert found == [queue, "b", queue]


def test_a_pipe_serves_one_secret_in_every_load() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"first\nsecond\n")
    os.close(write_end)
    environ = {"INFERTOOL_PHOENIX__TOKEN_FILE": f"/dev/fd/{read_end}"}
    tokens = [settings(environ=environ).settings.phoenix.token.reveal() for _ in range(2)]
    assert tokens == ["first", "first"]
    error = refusal(environ={"INFERTOOL_BROKER__PASSWORD_FILE": f"/dev/fd/{read_end}"})
    os.close(read_end)
    assert "its first line is empty" in error.what
