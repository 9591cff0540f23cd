"""`consume --join-param`: parameters of a join, besides the token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infertool.cli.common.options import parse_pairs
from infertool.embedded.channel_server.channels import OK, Definition, RefuseJoin
from infertool.errors import UsageError
from tests.embedded.channel_server.running import RunningHub
from tests.support.embedded import EmbeddedBroker
from tests.support.running import infertool

TOKEN = "Hush-me/31"
WANTED = {"token": TOKEN, "room": "a=b", "n": "1"}


@pytest.mark.parametrize(
    ("pairs", "params"),
    [
        (["room=a"], {"room": "a"}),
        (["room=a", "n=1"], {"room": "a", "n": "1"}),
        (["room=a=b"], {"room": "a=b"}),
        (["room="], {"room": ""}),
        (["r m= a "], {"r m": " a "}),
    ],
)
def test_pairs(pairs: list[str], params: dict[str, str]) -> None:
    assert parse_pairs("--join-param", pairs, "room=a") == params


@pytest.mark.parametrize("pair", ["Hush", "=Hush", ""])
def test_the_error_for_an_invalid_pair_does_not_show_it(pair: str) -> None:
    with pytest.raises(UsageError, match="--join-param number 2 is no name=value") as caught:
        parse_pairs("--join-param", ["room=a", pair], "room=a")
    assert "Hush" not in str(caught.value)


def test_a_repeated_name_is_refused() -> None:
    with pytest.raises(UsageError, match="gives room twice"):
        parse_pairs("--join-param", ["room=a", "room=b"], "room=a")


@pytest.mark.parametrize(("arguments", "code"), [(["--join-param", "room=a=b", "--join-param", "n=1"], 0), ([], 3)])
def test_a_consumer_joins_with_the_parameters(tmp_path: Path, arguments: list[str], code: int) -> None:
    joins = []

    def join(_channel: Any, params: Any) -> dict[Any, Any]:
        joins.append(params)
        if params != WANTED:
            raise RefuseJoin("not you")
        return {}

    broker = EmbeddedBroker().start()
    with RunningHub([Definition("*", join, lambda *_: OK)], TOKEN) as hub:
        done = infertool(
            "consume", "--broker", broker.url, "--phoenix", f"ws://127.0.0.1:{hub.port}/socket/websocket",
            "--model", "sim:", "--confirm", "reply", "--exit-when-idle", "100ms", "--debug", *arguments,
            PHOENIX_SERVICE_TOKEN=TOKEN, INFERTOOL_CONSUME__STATE_DIR=str(tmp_path),
        )  # fmt: skip
    broker.stop()
    assert done.returncode == code, done.stderr
    assert joins == [WANTED if code == 0 else {"token": TOKEN}]
    assert TOKEN not in done.stdout + done.stderr
