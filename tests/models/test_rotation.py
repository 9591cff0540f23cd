"""The token of a model server is read for each request, its TLS files for each connection."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infertool.errors import ModelUnavailableError
from infertool.models.loader import open_model, warm_up
from infertool.models.port import LoadedModel
from infertool.settings import ModelSettings
from tests.support.certificates import authority
from tests.support.modelserver import ModelServer, Reply, Request, answer, reply
from tests.support.secretfiles import secret_in

EVENT = {"event_id": "e"}
V2_ANSWER = {"outputs": [{"name": "y", "shape": [1], "datatype": "FP32", "data": [1]}]}


class Guarded:
    """Takes one token at a time, and knows the two protocols."""

    def __init__(self) -> None:
        self.token = "first"

    def __call__(self, request: Request) -> Reply:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return reply(b"who are you, with your " + request.headers["authorization"].encode(), "401 Unauthorized")
        if request.path.endswith("/infer"):
            return answer(V2_ANSWER)
        return answer({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]})


@pytest.fixture
def guarded() -> Guarded:
    return Guarded()


@pytest.fixture
def server(guarded: Guarded) -> Iterator[ModelServer]:
    running = ModelServer().start()
    running.handler = guarded
    yield running
    running.stop()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("first\n")
    return file


def opened(url: str, token: Path, **settings: Any) -> LoadedModel:
    model = open_model(
        ModelSettings(
            spec=url, token=secret_in(token, "model.token"), circuit_failures=1000, circuit_wait_s=0.01, **settings
        )
    )
    warm_up(model)
    return model


@pytest.mark.parametrize("path", ["/predict", "/v2/models/m/infer"])
def test_a_rotated_token_is_used_by_the_next_request(
    server: ModelServer, guarded: Guarded, token: Path, path: str
) -> None:
    model = opened(server.url.replace("/predict", path), token)
    event = {"x": [1.0]}
    model.predict(event)
    guarded.token = "second"
    with pytest.raises(ModelUnavailableError) as caught:
        model.predict(event)
    assert "first" not in str(caught.value)
    token.write_text("second\n")
    _predict_when_the_circuit_lets(model, event)
    model.close()


@pytest.mark.parametrize("content", [None, "", "caf\u00e9", "a\x01b"])
def test_a_token_that_cannot_be_used_now_holds_the_event(server: ModelServer, token: Path, content: str | None) -> None:
    model = opened(server.url, token)
    if content is None:
        token.unlink()
    else:
        token.write_text(content)
    asked = len(server.requests)
    with pytest.raises(ModelUnavailableError, match=r"model\.token"):
        model.predict(EVENT)
    assert len(server.requests) == asked
    token.write_text("first\n")
    _predict_when_the_circuit_lets(model, EVENT)
    model.close()


def test_tls_files_are_read_for_each_connection(guarded: Guarded, token: Path, tmp_path: Path) -> None:
    old, new = (authority(tmp_path, name) for name in ("old", "new"))
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(old.file.read_bytes())
    first = ModelServer(certificate=old.issue("server", "127.0.0.1")).start()
    first.handler = guarded
    model = opened(first.url, token, tls_ca_file=str(trusted))
    model.predict(EVENT)
    first.stop()
    second = ModelServer(port=first.port, certificate=new.issue("server", "127.0.0.1")).start()
    second.handler = guarded
    trusted.unlink()
    with pytest.raises(ModelUnavailableError, match=r"model\.tls_ca_file"):
        model.predict(EVENT)
    trusted.write_bytes(new.file.read_bytes())
    _predict_when_the_circuit_lets(model, EVENT)
    model.close()
    second.stop()


def _predict_when_the_circuit_lets(model: LoadedModel, event: dict[str, Any]) -> None:
    """A held event is tried again; so are these."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(ModelUnavailableError):
            model.predict(event)
            return
        time.sleep(0.02)
    pytest.fail("held for ever")
