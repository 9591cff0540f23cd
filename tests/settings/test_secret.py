"""No value that may be a password or token is ever shown."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from infertool.secret import MASK, Secret, is_telling, mask_url
from infertool.settings import BrokerSettings, ModelSettings, PhoenixSettings, Settings

S = "s3cret"


def test_a_secret_shows_a_mask_in_every_form() -> None:
    secret = Secret(S)
    shown = f"{secret} {secret!r} {secret!s} {[secret]}"
    assert S not in shown
    assert MASK in shown
    assert secret.reveal() == S


def test_an_empty_secret_is_false_and_shows_nothing() -> None:
    assert not Secret()
    assert str(Secret()) == ""


def test_the_tree_shows_no_secret() -> None:
    settings = Settings(
        broker=BrokerSettings(url=f"stomp://u:{S}@h:1", password=Secret(S)),
        model=ModelSettings(spec=f"http://u:{S}@h/p?api_key={S}", token=Secret(S)),
        phoenix=replace(PhoenixSettings(), url=f"ws://h/s?token={S}", token=Secret(S), join_params={"token": S}),
    )
    assert S not in repr(settings)


@pytest.mark.parametrize(
    "url",
    [
        "stomp://localhost:61613",
        "stomp://a:61613,b:61613",
        "stomp+ssl://[::1]:61613,b",
        "ws://h:4000/socket/websocket?vsn=2.0.0",
        "ws://h:4000/s?email=a@b.c",
        "ws://h,b:2/s?x=1#top",
        "localhost",
        "",
    ],
)
def test_urls_without_secrets_stay_as_they_are(url: str) -> None:
    assert mask_url(url) == url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"stomp://admin:{S}@a:1", f"stomp://admin:{MASK}@a:1"),
        (f"stomp://u:{S}@a:1,v:{S}@b:2", f"stomp://u:{MASK}@a:1,v:{MASK}@b:2"),
        (f"stomp://u:{S}@a:1,b:2", f"stomp://u:{MASK}@a:1,b:2"),
        (f"stomp://u:{S}@[::1]:1", f"stomp://u:{MASK}@[::1]:1"),
        (f"stomp://{S}@a", f"stomp://{MASK}@a"),
        (f"stomp://{S}:@a", f"stomp://{MASK}@a"),
        (f"stomp://u:{S}%40{S}@a", f"stomp://u:{MASK}@a"),
        (f"stomp://u:{S}:{S}@a", f"stomp://u:{MASK}@a"),
        (f"ws://h/s?token={S}&vsn=2.0.0", f"ws://h/s?token={MASK}&vsn=2.0.0"),
        (f"ws://h/s?a=b@c&TOKEN={S}", f"ws://h/s?a=b@c&TOKEN={MASK}"),
        (f"ws://u:{S}@h/s?a=b@c&x_token={S}", f"ws://u:{MASK}@h/s?a=b@c&x_token={MASK}"),
        (f"ws://h/s?%74oken={S}", f"ws://h/s?%74oken={MASK}"),
        (f"ws://h/s?user[api_key]={S}=", f"ws://h/s?user[api_key]={MASK}"),
    ],
)
def test_secrets_are_masked_and_the_rest_stays(url: str, shown: str) -> None:
    assert mask_url(url) == shown


@pytest.mark.parametrize("mark", list("@/?#,:;&=% "))
def test_a_password_that_nobody_encoded_is_masked_as_a_whole(mark: object) -> None:
    for password in (f"x{mark}{S}", f"{S}{mark}x", f"{S}{mark}{S}"):
        assert S not in mask_url(f"stomp://u:{password}@host:61613")


@pytest.mark.parametrize(
    "url", [f"u:{S}@h:1", f"stomp://u:{S}", f"u:{S}", f"ws://h/s#token={S}", f"ws://h?a=1?token={S}"]
)
def test_addresses_that_are_no_urls_are_masked(url: str) -> None:
    assert S not in mask_url(url)


@given(
    user=st.text("abc%:", max_size=5), password=st.text("#/?@,:&;% x1", max_size=8), host=st.sampled_from(["h", "h:1"])
)
@example(user="", password="", host="h")
def test_no_password_survives(user: str, password: str, host: str) -> None:
    assert S not in mask_url(f"stomp://{user}:{S}{password}@{host}")


@pytest.mark.parametrize("name", ["token", "Password", "api_key", "x-auth", "secretText", "jwt"])
def test_telling_names(name: str) -> None:
    assert is_telling(name)


@pytest.mark.parametrize("name", ["vsn", "room", "user", "id"])
def test_other_names(name: str) -> None:
    assert not is_telling(name)
