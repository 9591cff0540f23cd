"""The HTTP client against a real server that fails on demand: the effect of each failure on its event."""

from __future__ import annotations

import gzip
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from infertool.errors import InferenceError, InfertoolError, ModelUnavailableError
from infertool.models.loader import open_model
from infertool.models.port import LoadedModel
from infertool.secret import MASK, Secret
from infertool.settings import ModelSettings
from tests.support.certificates import authority
from tests.support.modelserver import ModelServer, Reply, Request, answer, reply
from tests.support.ports import free_port
from tests.support.present import present

EVENT = {"event_id": "e", "features": [1, 2.5], "text": "für"}
SECRET = "Hush-me/31"
# Cap on a wait for a condition. Seconds.
LONG_S = 60.0


def failure(model: LoadedModel) -> InferenceError:
    with pytest.raises(InferenceError) as caught:
        model.predict(EVENT)
    return caught.value


def kind(error: InferenceError) -> str:
    if isinstance(error, ModelUnavailableError):
        return "held"
    return "tried again" if error.retryable else "refused"


def test_an_event_is_posted_as_it_is_and_the_answer_is_its_result(
    server: ModelServer, opened: Callable[..., LoadedModel]
) -> None:
    server.handler = lambda request: answer({"class": "B", "seen": request.json})
    assert opened(server.url).predict(EVENT) == {"class": "B", "seen": EVENT}
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/predict")
    assert request.headers["content-type"] == "application/json"
    assert "authorization" not in request.headers


@pytest.mark.parametrize("value", [1, None, "text", [1, 2], False])
def test_any_json_is_a_result(server: ModelServer, opened: Callable[..., LoadedModel], value: Any) -> None:
    server.handler = lambda _request: answer(value)
    assert opened(server.url).predict(EVENT) == value


def test_one_connection_serves_many_events(server: ModelServer, opened: Callable[..., LoadedModel]) -> None:
    model = opened(server.url)
    for _ in range(20):
        model.predict(EVENT)
    assert server.connections == 1


def test_as_many_connections_as_calls_at_the_same_time(server: ModelServer, opened: Callable[..., LoadedModel]) -> None:
    together = threading.Barrier(8, timeout=120)

    def meet(_request: Request) -> Reply:
        together.wait()
        return answer({})

    server.handler = meet
    model = opened(server.url)
    threads = [threading.Thread(target=model.predict, args=(EVENT,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert server.connections == 8
    server.handler = lambda _request: answer({})
    model.predict(EVENT)
    assert server.connections == 8


def deep(levels: int) -> Any:
    found: Any = {}
    for _ in range(levels):
        found = {"x": found}
    return found


@pytest.mark.parametrize("payload", [{"image": b"\x00"}, {1: "x"}, deep(5000)], ids=["bytes", "keys", "deep"])
def test_an_event_that_is_no_json_is_its_own_fault(
    server: ModelServer, opened: Callable[..., LoadedModel], payload: Any
) -> None:
    """Neither the circuit breaker nor the server gets to know of it."""
    states: list[str] = []
    settings = ModelSettings(spec=server.url, circuit_failures=1)
    model = open_model(settings, lambda _address, state, *_more: states.append(state))
    for ask in (model.predict, lambda payload: present(model.predict_batch)([payload])):
        with pytest.raises(InferenceError, match="the event cannot be sent as JSON") as caught:
            ask(payload)
        assert kind(caught.value) == "refused"
    assert model.predict(EVENT) == {"class": "A"}
    model.close()
    assert states == ["closed"]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        *((status, "held") for status in (301, 302, 307, 308, 401, 403, 407, 408, 425, 429, 502, 503, 504)),
        *((status, "tried again") for status in (500, 501, 507)),
        *((status, "refused") for status in (400, 404, 405, 413, 415, 422, 451)),
    ],
)
def test_what_a_status_means(
    server: ModelServer, opened: Callable[..., LoadedModel], status: Any, meaning: Any
) -> None:
    server.handler = lambda _request: reply(b'{"detail": "because"}', f"{status} Said So", location="/elsewhere")
    error = failure(opened(server.url))
    assert kind(error) == meaning
    assert f"{server.url} answered {status}" in str(error)
    assert "because" in str(error)
    assert len(server.requests) == 1, "nothing is asked twice, and no redirect is followed"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", (7, 7.5)),
        ("7200", (600, 600.5)),
        ("in a minute", (1, 61)),
        ("a minute ago", (0, 1)),
        ("soon", (0, 1)),
        ("-3", (0, 1)),
    ],
)
def test_a_server_says_when_to_come_back(
    server: ModelServer, opened: Callable[..., LoadedModel], header: str, seconds: tuple[Any, ...]
) -> None:
    dates = {"in a minute": time.time() + 60, "a minute ago": time.time() - 60}
    written = formatdate(dates[header], usegmt=True) if header in dates else header
    server.handler = lambda _request: reply(b"", "503 Busy", retry_after=written)
    low, high = seconds
    error = failure(opened(server.url))
    assert isinstance(error, ModelUnavailableError)
    assert low <= error.retry_after_s <= high


def test_a_500_that_says_when_to_come_back_is_no_fault_of_the_event(
    server: ModelServer, opened: Callable[..., LoadedModel]
) -> None:
    server.handler = lambda _request: reply(b"", "500 Oops", retry_after="3")
    assert kind(failure(opened(server.url))) == "held"


CUT = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (reply(b"<html>Login, please</html>", content_type="text/html"), "no JSON: <html>Login"),
        (reply(b""), "no JSON"),
        (reply(b"", "204 No Content"), "no JSON"),
        (reply(b'{"confidence": NaN}'), "no JSON"),
        (reply(b"\xff\xfe{}"), "no JSON"),
        (Reply(CUT, close=True), "broke off"),
        (Reply(CHUNKED + b'5\r\n{"a":\r\n', close=True), "broke off"),
        (Reply(b"SSH-2.0-OpenSSH_9.2\r\n", close=True), "broke off"),
        (Reply(b"\0" * 70_000, close=True), "broke off"),
        (reply(b"not gzip", content_encoding="gzip"), "broke off"),
        (Reply(b"", close=True), "broke off"),
    ],
)
def test_a_broken_answer_is_a_failed_try(
    server: ModelServer, opened: Callable[..., LoadedModel], given: Reply, words: str
) -> None:
    server.handler = lambda _request: given
    model = opened(server.url)
    error = failure(model)
    assert kind(error) == "tried again"
    assert words in str(error)
    server.handler = lambda _request: answer({"class": "A"})
    assert model.predict(EVENT) == {"class": "A"}


def test_kept_connections_that_the_server_closes_cost_no_try(
    server: ModelServer, opened: Callable[..., LoadedModel]
) -> None:
    server.handler = lambda _request: reply(b"{}", close=True)
    model = opened(server.url)
    for _ in range(30):
        assert model.predict(EVENT) == {}


def test_a_server_that_is_too_slow(server: ModelServer, opened: Callable[..., LoadedModel]) -> None:
    released = threading.Event()

    def wait(_request: Request) -> Reply:
        released.wait(120)
        return answer({})

    server.handler = wait
    error = failure(opened(server.url, timeout_s=0.2))
    released.set()
    assert (kind(error), "model.timeout_s" in str(error)) == ("tried again", True)


def test_a_silent_server_is_not_asked_for_its_protocol_at_each_failure(
    server: ModelServer, opened: Callable[..., LoadedModel]
) -> None:
    """That takes seconds, which a call has not."""
    released = threading.Event()

    def wait(_request: Request) -> Reply:
        released.wait(120)
        return answer({})

    server.handler = wait
    model = opened(server.url, timeout_s=0.1)
    failure(model)
    asked = server.connections
    for _ in range(3):
        assert "model.timeout_s" in str(failure(model))
    released.set()
    assert server.connections == asked + 3


def test_a_server_that_trickles(server: ModelServer, opened: Callable[..., LoadedModel]) -> None:
    def drops() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"
        for _ in range(1000):
            time.sleep(0.05)
            yield b" "

    server.handler = lambda _request: Reply(drops())
    started = time.monotonic()
    assert "model.timeout_s" in str(failure(opened(server.url, timeout_s=0.5)))
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    "given",
    [
        reply(b'"' + b"x" * 5000 + b'"'),
        Reply(CHUNKED + b"3e8\r\n%b\r\n" % (b"x" * 1000) * 3 + b"0\r\n\r\n"),
        reply(gzip.compress(b" " * 50_000_000), content_encoding="gzip"),
    ],
    ids=["length", "chunks", "compressed"],
)
def test_an_answer_that_is_too_large(server: ModelServer, opened: Callable[..., LoadedModel], given: Reply) -> None:
    server.handler = lambda _request: given
    model = opened(server.url, max_response_bytes=1000)
    error = failure(model)
    assert (kind(error), "model.max_response_bytes" in str(error)) == ("refused", True)
    server.handler = lambda _request: answer(1)
    assert model.predict(EVENT) == 1


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:{free}/predict", "cannot be reached: Connection refused"),
        ("http://no-such-host.invalid/predict", "host of http://no-such-host.invalid/predict is not known"),
        ("https://127.0.0.1:{plain}/predict", "answers without TLS; use http:// in model.spec"),
    ],
)
def test_a_server_that_is_not_there_holds_its_events(
    server: ModelServer, opened: Callable[..., LoadedModel], url: str, words: str
) -> None:
    model = opened(url.format(free=free_port(), plain=server.port))
    error = failure(model)
    assert kind(error) == "held"
    assert words in str(error)


def test_tls(tmp_path: Path, opened: Callable[..., LoadedModel]) -> None:
    ours, stranger = authority(tmp_path, "ours"), authority(tmp_path, "stranger")
    server = ModelServer(certificate=ours.issue("server", "127.0.0.1"), client_authority=ours.file).start()
    client = str(ours.issue("client"))
    trusting = {"tls_ca_file": str(ours.file), "tls_cert_file": client}
    assert opened(server.url, **trusting).predict(EVENT) == {"class": "A"}
    assert opened(server.url, tls_verify=False, tls_cert_file=client).predict(EVENT) == {"class": "A"}
    untrusted = failure(opened(server.url, tls_ca_file=str(stranger.file)))
    assert kind(untrusted) == "held"
    assert str(untrusted).endswith("set model.tls_ca_file to the PEM file of its authority")
    other_name = server.url.replace("127.0.0.1", "localhost")
    assert "certificate is not valid for 'localhost'" in str(failure(opened(other_name, **trusting)))
    without = failure(opened(server.url, tls_ca_file=str(ours.file)))
    assert kind(without) == "held"
    assert "a client certificate" in str(without)
    assert "model.tls_cert_file" in str(without)
    strange = failure(opened(server.url, tls_ca_file=str(ours.file), tls_cert_file=str(stranger.issue("strange"))))
    assert kind(strange) == "held"
    assert "accept the client certificate of model.tls_cert_file" in str(strange)
    server.stop()
    with pytest.raises(InfertoolError, match=r"model\.tls_ca_file '/nowhere' cannot be used: No such file"):
        opened(server.url, tls_ca_file="/nowhere")


@pytest.mark.parametrize(
    ("user", "settings", "authorization"),
    [
        ("", {"token": Secret(SECRET)}, f"Bearer {SECRET}"),
        ("ann:Hush-me%2F31@", {}, "Basic YW5uOkh1c2gtbWUvMzE="),
        ("Hush-me%2F31@", {}, "Basic SHVzaC1tZS8zMTo="),
        ("ann:other@", {"token": Secret(SECRET)}, f"Bearer {SECRET}"),
    ],
)
def test_secrets_are_sent_and_never_shown(
    server: ModelServer,
    opened: Callable[..., LoadedModel],
    caplog: pytest.LogCaptureFixture,
    user: str,
    settings: dict[str, Any],
    authorization: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("urllib3").setLevel(logging.NOTSET)
    told: list[str] = []

    def echo(request: Request) -> Reply:
        told.append(request.headers["authorization"])
        told_back = json.dumps({**request.headers, "path": request.path})
        escaped = told_back.replace("/", "\\/") + " " * 700 + told_back
        return reply((told_back + escaped).encode(), "400 Bad", x_bad="\r\nbroken")

    server.handler = echo
    url = f"{server.url.replace('//', '//' + user)}?api_key=Hush-me%2F31&mode=fast"
    changes = []
    model = open_model(ModelSettings(spec=url, **settings), lambda *change: changes.append(change))
    error = failure(model)
    model.close()
    assert told == [authorization]
    assert server.requests[0].path == "/predict?api_key=Hush-me%2F31&mode=fast"
    shown = repr([model.name, model.spec, str(error), vars(error), changes, caplog.text, model])
    for trace in ("Hush-me", "YW5uOkh1", "SHVzaC1t"):
        assert trace not in shown
    assert MASK in str(error)
    assert model.name == f"{server.url}?api_key={MASK}&mode=fast"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("http:///predict", "names no host"),
        ("http://h:99999/", "is no address"),
        ("http://exa mple/", "is no address"),
        (f"http://u:{SECRET}@h:port/", "is no address"),
        (f"http://u:{SECRET}@/", "no"),
    ],
)
def test_addresses_that_are_none(spec: str, words: str) -> None:
    with pytest.raises(InfertoolError, match=words) as caught:
        open_model(ModelSettings(spec=spec))
    assert SECRET not in str(caught.value) + repr(vars(caught.value))


def test_a_token_that_no_header_can_carry() -> None:
    with pytest.raises(InfertoolError, match="a header cannot carry") as caught:
        open_model(ModelSettings(spec="http://h/", token=Secret(f"{SECRET}\nX: y")))
    assert SECRET not in str(caught.value) + repr(vars(caught.value))
