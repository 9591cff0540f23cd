"""Errors of settings: the cause, the place, and the correction."""

from __future__ import annotations

from pathlib import Path

import pytest

from infertool.errors import SettingsError
from infertool.settings.load import load
from tests.settings.test_load import empty_folder, refusal, settings

__all__ = ["empty_folder"]

S = "s3cret"


@pytest.mark.parametrize(
    ("toml", "text", "nearest"),
    [
        ('[broker]\n\nurll = "x"', "my.toml:3: unknown key broker.urll; did you mean 'broker.url'?", "broker.url"),
        ("[brokr]", "my.toml:1: unknown key brokr; did you mean 'broker'?", "broker"),
        ("[profiles.x]", "did you mean 'profile'?", "profile"),
        ("zzz = 1", "my.toml:1: unknown key zzz; `infertool config init` writes every key there is", ""),
        ("[profile.a.broker]\nurll = 1", "my.toml:2: unknown key profile.a.broker.urll", "profile.a.broker.url"),
        ("[profile.a.brokr]", "did you mean 'profile.a.broker'?", "profile.a.broker"),
    ],
)
def test_unknown_keys_name_the_nearest(toml: str, text: str, nearest: str) -> None:
    error = refusal(toml)
    assert text in str(error)
    assert error.nearest == nearest


@pytest.mark.parametrize(
    ("toml", "text"),
    [
        ("[broker]\nheartbeat_s = '10'", "my.toml:2: broker.heartbeat_s must be a number, not text"),
        ("[broker]\nheartbeat_s = true", "must be a number, not true or false"),
        ("[broker]\ntls_verify = 1", "must be true or false, not a whole number"),
        ("[broker]\npassword = 1", "my.toml:2: broker.password must be text, not a whole number"),
        ("[broker]\nurl = ['a']", "must be text, not a list"),
        ("[broker]\nuser = 2020-01-01", "must be text, not date"),
        ("[consume]\nconcurrency = 1.5", "must be a whole number or auto, not a number"),
        ("[phoenix]\njoin_params = 'x'", "must be a table, not text"),
        ("[phoenix]\nconfirm = 'ehco'", "must be one of auto, reply, echo, barrier, none; did you mean 'echo'?"),
        ("[phoenix]\nconfirm = 3", "must be one of auto"),
        ("broker = 'x'", "my.toml:1: broker must be a table; write [broker]"),
        ("profile = 'x'", "profile must be a table"),
        ("[profile]\nx = 'y'", "my.toml:2: profile.x must be a table"),
        ("broker = {heartbeat_s = 'x'}", "my.toml:1: broker.heartbeat_s must be a number"),
        ("[profile.unused.broker]\nheartbeat_s = 'x'", "my.toml:2: broker.heartbeat_s must be a number"),
    ],
)
def test_wrong_types_say_what_is_expected(toml: str, text: str) -> None:
    assert text in str(refusal(toml))


@pytest.mark.parametrize(
    ("toml", "text"),
    [
        ("[consume]\nmax_attempts = 0", "my.toml:2: consume.max_attempts is 0, but must be 1 or more"),
        ('[consume]\ndevices = "0-3"', "consume.devices is '0-3': write each device, such as 0,1,2,3"),
        ('[consume]\ndevices = "5, 0 .. 3"', "consume.devices is '5, 0 .. 3': write each device"),
        ("[consume]\nwindow = -1", "consume.window is -1, but must be 0 or more"),
        ("[consume]\nmax_attempts = 0", "1 or more"),
        ("[publish]\nbatch = 0", "publish.batch is 0, but must be 1 or more"),
        ("[broker]\nheartbeat_s = -0.5", "broker.heartbeat_s is -0.5, but must be 0 or more seconds"),
        ("[broker]\nheartbeat_s = nan", "is nan, but"),
        ("[broker]\nheartbeat_s = inf", "is inf, but"),
        ("[consume]\ntimeout_s = 0", "consume.timeout_s is 0, but must be more than 0 seconds"),
        ("[broker]\nurl = 'localhost:61613'", "must be scheme://host:port"),
        ("[broker]\nurl = 'stomp://'", "must be scheme://host:port"),
        ("[broker]\nurl = 'stomp://h:0'", "a port from 1 to 65535"),
        ("[broker]\nurl = 'stomp://h:65536'", "a port from 1 to 65535"),
        ("[broker]\nurl = 'stomp://a:1,b:x'", "a port from 1 to 65535"),
        ("[broker]\nurl = 'stomp://a:1,,b:2'", "a port from 1 to 65535"),
        ("[phoenix]\nurl = 'ws://[::1:4000/socket'", "a port from 1 to 65535"),
        ("[telemetry]\ntrace_url = 'http://h/t/'", "telemetry.trace_url must have {trace_id} once"),
        ("[telemetry]\ntrace_url = 'http://h/{trace_id}/{trace_id}'", "must have {trace_id} once"),
        ("[telemetry]\ntrace_url = 'file:///etc/{trace_id}'", "must be http:// or https://"),
        ("[telemetry]\ntrace_url = 'javascript:alert({trace_id})'", "must be http:// or https://"),
        ("[telemetry]\ntrace_url = 'http://{trace_id}'", "must be http:// or https://"),
        ("[telemetry]\ntrace_url = 'http://h/ {trace_id}'", "must be http:// or https://"),
        ("[telemetry]\ntrace_url = 'http://h:0/{trace_id}'", "a port from 1 to 65535"),
    ],
)
def test_values_that_cannot_work(toml: str, text: str) -> None:
    assert text in str(refusal(toml))


@pytest.mark.parametrize(
    "url", ["stomp://a", "stomp://a:1,b:2", "stomp://u:p@[::1]:1", "stomp+ssl://u:p%2F@h:1/path?x=1"]
)
def test_urls_that_can_work(url: str) -> None:
    assert settings(f"broker.url = '{url}'").settings.broker.url == url


@pytest.mark.parametrize("url", ["", "http://h/{trace_id}", "https://u:p@h:1/t?x={trace_id}&y#a"])
def test_pages_of_traces_that_can_work(url: str) -> None:
    assert settings(f"telemetry.trace_url = '{url}'").settings.telemetry.trace_url == url


def test_zero_is_allowed_where_it_means_off_or_at_once() -> None:
    toml = "broker = {heartbeat_s = 0, reconnect_base_s = 0}\nconsume = {stop_deadline_s = 0, window = 0}"
    assert settings(toml).settings.broker.heartbeat_s == 0.0


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"INFERTOOL_BROKER_URL": "x"}, "INFERTOOL_BROKER_URL is no setting; did you mean INFERTOOL_BROKER__URL?"),
        ({"INFERTOOL_PROFIL": "x"}, "did you mean INFERTOOL_PROFILE?"),
        ({"INFERTOOL_QQQQ": "x"}, "write it like INFERTOOL_BROKER__URL"),
        ({"INFERTOOL_CONSUME__CONCURRENCY": "x"}, "CONSUME__CONCURRENCY: consume.concurrency must be a whole number"),
        ({"INFERTOOL_CONSUME__CONCURRENCY": "-1"}, "INFERTOOL_CONSUME__CONCURRENCY: consume.concurrency is -1"),
        ({"INFERTOOL_BROKER__TLS_VERIFY": "maybe"}, "must be true or false"),
        ({"INFERTOOL_PHOENIX__JOIN_PARAMS": "{"}, "must be a table"),
        ({"INFERTOOL_PHOENIX__JOIN_PARAMS": "[]"}, "must be a table"),
    ],
)
def test_wrong_variables(environ: dict[str, str], text: str) -> None:
    assert text in str(refusal(environ=environ))


def test_a_wrong_flag_is_named_as_typed() -> None:
    error = refusal(flags={"telemetry.log_format": ("--log-format", "jsn")})
    assert str(error) == "--log-format: telemetry.log_format must be one of text, json; did you mean 'json'?"
    assert (error.key, error.origin) == ("telemetry.log_format", "--log-format")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"[broker", "is not TOML: Expected ']'"),
        (b"\xff\xfe", "is not TOML: 'utf-8' codec can't decode byte 0xff"),
        (b"[broker]\n[broker]", "is not TOML: Cannot declare"),
    ],
)
def test_a_file_that_is_not_toml(content: bytes, text: str) -> None:
    Path("infertool.toml").write_bytes(content)
    assert f"infertool.toml {text}" in str(refusal())


def test_a_missing_config() -> None:
    assert "there is no settings file stagin.toml; `infertool config init` writes one" in config_refusal("stagin.toml")
    Path("staging.toml").touch()
    assert "there is no settings file stagin.toml; did you mean 'staging.toml'?" in config_refusal("stagin.toml")


def test_a_config_that_is_a_folder() -> None:
    Path("folder").mkdir()
    assert config_refusal("folder") == "folder cannot be read: Is a directory"


def test_a_config_that_is_no_regular_file() -> None:
    assert load(config=Path("/dev/null"), profile=None, environ={}, flags={}).files == (Path("/dev/null"),)


def config_refusal(path: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(config=Path(path), profile=None, environ={}, flags={})
    return str(caught.value)


@pytest.mark.parametrize(
    "toml",
    [
        f"[broker]\npassword = [{S!r}]",
        f"[broker]\ntls_verify = {S!r}",
        f"[phoenix]\ntoken_in = {S!r}",
        f"[broker]\nurl = ['stomp://u:{S}@h']",
        f"[broker]\nurl = 'stomp://u:{S}/@h:1'",
        f"[broker]\nurl = 'u:{S}@h:1'",
        f"[broker]\npassword = '{S}'\npassword = '{S}'",
        f"[broker]\npassword = {S}",
        f"[broker]\npassword = '{S}",
        f"[broker]\npassword = '{S}'\npassword_file = 'x'",
    ],
)
def test_no_error_shows_a_secret(toml: str) -> None:
    error = refusal(toml)
    assert S not in str(error)
    assert S not in repr(error) + repr(vars(error))


def test_a_file_that_cannot_be_read() -> None:
    assert config_refusal("/proc/self/mem") == "/proc/self/mem cannot be read: Input/output error"


@pytest.mark.parametrize(
    ("toml", "text"),
    [
        ("a = " + "[" * 5000, "is not TOML that can be read: too many levels"),
        ('[broker]\npassword_file = "a\\u0000"', "my.toml:2: broker.password_file has a NUL in it"),
        ('[model]\nspec = "a\\u0000.py:predict"', "my.toml:2: model.spec has a NUL in it"),
        ('[broker]\npassword_file = "~no-such-user/p"', "~no-such-user/p cannot be used: No such file"),
        (f'[broker]\npassword_file = "{"x" * 500}"', "cannot be used: File name too long"),
    ],
    ids=["levels", "file", "model", "user", "name"],
)
def test_what_no_file_system_takes_is_an_error_of_its_key(toml: str, text: str) -> None:
    assert text in str(refusal(toml))
