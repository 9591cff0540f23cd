"""HTTP clients and a port that speaks something else: each says what, and the URL to write."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from infertool.alerts.sinks.alertmanager import AlertmanagerSink
from infertool.alerts.sinks.port import Sink, SinkError
from infertool.alerts.sinks.webhook import WebhookSink
from infertool.app.doctor.hosts import Place, checks
from infertool.app.doctor.http_get import get
from infertool.brokers.amqp.management import Management
from infertool.cli.alerts.remote import list_rules
from infertool.cli.submit.gateway import Gateway, Pace
from infertool.cli.submit.target import target
from infertool.errors import InferenceError, InfertoolError, ModelLoadError, ModelUnavailableError
from infertool.load.arrivals import Planned
from infertool.load.headers import EnvelopeOptions
from infertool.load.http_options import HttpOptions
from infertool.load.options import LoadOptions
from infertool.load.run import Listeners, LoadRun
from infertool.models.loader import open_model
from infertool.net.tls import client_context
from infertool.secret import Secret
from infertool.settings import ModelSettings, Settings
from infertool.settings.broker import BrokerSettings
from infertool.watch.consumer_stats import StatsFollower
from tests.alerts.test_sinks import SECRET, notification
from tests.phoenix.test_tls import server_with
from tests.support import certificates
from tests.support.phoenix_fake import raw_server
from tests.support.running import infertool

NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
STOMP = b"ERROR\nmessage:no\n\n\0"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infertool.net.identify._PROBE_S", 120.0)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> certificates.Authority:
    return certificates.authority(tmp_path_factory.mktemp("authority"))


@contextmanager
def answering(said: bytes, tls: ssl.SSLContext | None = None, *, in_plain: bytes = b"") -> Iterator[int]:
    """Yield the port of a server that says one thing, with `tls` inside TLS; `in_plain` to what asks without."""

    def answer(connection: socket.socket) -> None:
        is_hello = connection.recv(1, socket.MSG_PEEK) == b"\x16"
        if tls and in_plain and not is_hello:
            connection.recv(65536)
            connection.sendall(in_plain)
            return
        with tls.wrap_socket(connection, server_side=True) if tls else connection as line:
            line.recv(65536)
            line.sendall(said)

    with raw_server(answer) as port:
        yield port


def alerts(url: str) -> str:
    with pytest.raises(InfertoolError) as caught:
        list_rules(url, as_json=False)
    return str(caught.value)


def doctor(url: str) -> str:
    with pytest.raises(InfertoolError) as caught:
        get(url, "/stats", 60.0, setting="--stats-url", advice="")
    return str(caught.value)


def management(url: str) -> str:
    asked = Management(BrokerSettings(), url, user="u", password=Secret("p"), vhost="/")
    with closing(asked), pytest.raises(InfertoolError) as caught:
        asked.queue("q")
    return str(caught.value)


def submit(url: str) -> str:
    where = target(url)
    tls = ssl.create_default_context() if where.scheme == "https" else None
    gateway = Gateway(where, {}, Pace(3600.0), follow=False, tls=tls)
    with pytest.raises(InfertoolError) as caught:
        asyncio.run(gateway.submit(b"{}", "key"))
    return str(caught.value)


def watch(url: str) -> str:
    return StatsFollower(url, lambda _: None)._follow()


def v2_model(url: str) -> str:
    opened = open_model(ModelSettings(spec=f"{url}/v2/models/m/infer"))
    with closing(opened), pytest.raises(ModelLoadError) as caught:
        opened.warm_up()
    return str(caught.value)


def webhook(url: str) -> str:
    return posted(WebhookSink(url, SECRET, 60.0))


def alertmanager(url: str) -> str:
    return posted(AlertmanagerSink(url, 60.0))


def posted(sink: Sink) -> str:
    with closing(sink), pytest.raises(SinkError) as caught:
        sink.send([notification()], "key")
    return str(caught.value)


def model(url: str) -> str:
    with (
        closing(open_model(ModelSettings(spec=f"{url}/predict"))) as opened,
        pytest.raises(ModelUnavailableError) as caught,
    ):
        opened.predict({})
    return str(caught.value)


def loadgen(url: str) -> str:
    planned = Planned(qps=1, count=3600)  # it does not go on for an hour
    options = LoadOptions(planned=planned, envelope=EnvelopeOptions(""), http=HttpOptions(url=url))
    run = LoadRun(Settings(), options, Listeners(), {})
    try:
        run.run()
    except InfertoolError as error:
        return str(error)
    return str(run.fault)


CLIENTS: tuple[tuple[Callable[[str], str], str], ...] = (
    (alerts, "--stats-url"), (doctor, "--stats-url"), (watch, "--stats-url"), (submit, "--url"), (loadgen, "--http"),
    (model, "model.spec"), (v2_model, "model.spec"), (management, "broker.management_url"),
    (webhook, "alerting.webhook_url"), (alertmanager, "alerting.alertmanager_url"),
)  # fmt: skip
each_client = pytest.mark.parametrize(("client", "setting"), CLIENTS, ids=[each.__name__ for each, _ in CLIENTS])


@each_client
def test_https_to_a_server_without_tls(client: Callable[[str], str], setting: str) -> None:
    with answering(NOT_FOUND) as port:
        said = client(f"https://127.0.0.1:{port}")
    assert "answers without TLS" in said
    assert f"use http:// in {setting}: http://127.0.0.1:{port}" in said


@each_client
@pytest.mark.parametrize("in_plain", [b"", BAD_REQUEST], ids=["ends", "400"])
def test_http_to_a_server_with_tls(
    client: Callable[[str], str], setting: str, authority: certificates.Authority, in_plain: bytes
) -> None:
    """Some servers with TLS end such a connection; nginx and others answer 400, in plain HTTP."""
    with answering(NOT_FOUND, server_with(authority), in_plain=in_plain) as port:
        said = client(f"http://127.0.0.1:{port}")
    assert "wants TLS" in said
    assert f"use https:// in {setting}: https://127.0.0.1:{port}" in said


@each_client
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_stomp_broker(client: Callable[[str], str], setting: str, scheme: str) -> None:
    with answering(STOMP) as port:
        said = client(f"{scheme}://127.0.0.1:{port}")
    assert "speaks STOMP, not HTTP" in said
    assert f"check the port in {setting}" in said


def test_a_stomp_broker_behind_tls(authority: certificates.Authority) -> None:
    with answering(STOMP, server_with(authority)) as port:
        spec = f"https://127.0.0.1:{port}/predict"
        opened = open_model(ModelSettings(spec=spec, tls_ca_file=str(authority.file)))
        with closing(opened), pytest.raises(ModelUnavailableError, match="speaks STOMP, not HTTP"):
            opened.predict({})


def test_a_server_with_tls_that_gives_no_answer_is_not_taken_for_one_without(authority: certificates.Authority) -> None:
    with answering(b"", server_with(authority), in_plain=BAD_REQUEST) as port:
        settings = ModelSettings(spec=f"https://127.0.0.1:{port}/predict", tls_ca_file=str(authority.file))
        with closing(open_model(settings)) as opened, pytest.raises(InferenceError) as caught:
            opened.predict({})
    assert "broke off" in str(caught.value)


def test_doctor_names_what_a_host_speaks_without_tls(authority: certificates.Authority) -> None:
    with answering(STOMP) as port:
        place = Place(
            group="model", key="model.spec", host="127.0.0.1", port=port, timeout_s=60.0,
            context=lambda: client_context("model", ModelSettings()), shows_certificate=False,
        )  # fmt: skip
        found = checks(place)[1].run()
    assert f"127.0.0.1:{port} speaks STOMP without TLS" in found.value


def test_loadgen_without_any_answer_fails_and_says_why() -> None:
    with answering(b"") as port:
        done = infertool("loadgen", "--http", f"http://127.0.0.1:{port}", "--count", "3", "--qps", "10", "-o", "json")
    report = json.loads(done.stdout)
    assert (report["lost"], report["sent"]) == (3, 3)
    assert any("3 requests were lost: the connection was closed" in note for note in report["notes"])
    assert done.returncode == 1
    assert "none of 3 requests was answered" in done.stderr
