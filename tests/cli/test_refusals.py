"""Refusals by a server and usage errors: one helpful line on stderr, an exit code, and no secrets."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.activemq import ActiveMQ
from tests.support.hub import HubProcess
from tests.support.phoenix_fake import raw_server, read_request
from tests.support.ports import free_port
from tests.support.running import infertool

# The output must not contain this, in any encoding used on a connection.
HUSH = "Hush-me/31"
TRACES = (HUSH, "Hush-me", "SHVzaC1tZS8z", "Hush%2Dme")
SECRETS = {"ACTIVEMQ_USER": "admin", "ACTIVEMQ_PASSWORD": HUSH, "PHOENIX_SERVICE_TOKEN": HUSH}
QUICK = {"INFERTOOL_BROKER__CONNECT_TIMEOUT_S": "0.5", "INFERTOOL_PHOENIX__CONNECT_TIMEOUT_S": "0.5"}
LOG_LINE = re.compile(r"\d\d:\d\d:\d\d\.\d{3} (info|warning) ")
NO_PHOENIX = ("--publish", "none")


def refused(*arguments: str, code: int, **env: str) -> str:
    """Run the command with and without --debug concurrently; return its one line."""
    env = {**SECRETS, **QUICK, **env}
    with ThreadPoolExecutor() as pool:
        loud = pool.submit(infertool, *arguments, "--debug", "--log-format", "json", **env)
        line = one_line(infertool(*arguments, **env), code)
    done = loud.result()
    assert (done.returncode, done.stdout) == (code, "")
    assert "Traceback" in done.stderr
    assert_hushed(done.stderr)
    return line


def one_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Return the one line that is not a log line; it must contain advice."""
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert_hushed(done.stderr)
    [line] = [line for line in done.stderr.splitlines() if not LOG_LINE.match(line)]
    assert line.startswith("infertool: ")
    assert "; " in line or "must be" in line
    return line


def assert_hushed(text: str) -> None:
    assert not [trace for trace in TRACES if trace in text]


@contextlib.contextmanager
def answering(response: bytes) -> Iterator[int]:
    """Serve the same HTTP response to every request."""

    def handle(connection: socket.socket) -> None:
        connection.settimeout(10)
        connection.recv(65536)
        connection.sendall(response)

    with raw_server(handle) as port:
        yield port


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """Accept, read, and never answer."""

    def hold(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass

    with raw_server(hold) as port:
        yield port


def ws(port: int) -> str:
    return f"ws://127.0.0.1:{port}/socket/websocket"


def stomp(port: int) -> str:
    return f"stomp://127.0.0.1:{port}"


HTTP = b"HTTP/1.1 %d Whatever\r\ncontent-length: 2\r\n\r\nhi"


@pytest.mark.activemq
@pytest.mark.parametrize("way", ["environment", "url", "file"])
def test_a_wrong_password(activemq: ActiveMQ, way: str, tmp_path: Path) -> None:
    url, env = activemq.url, {}
    if way == "url":
        url = url.replace("//", f"//admin:{HUSH.replace('/', '%2F')}@")
    if way == "file":
        (tmp_path / "secret").write_text(HUSH)
        env = {"INFERTOOL_BROKER__PASSWORD_FILE": str(tmp_path / "secret"), "ACTIVEMQ_PASSWORD": ""}
    line = refused("consume", "--broker", url, *NO_PHOENIX, code=3, **env)
    assert activemq.url in line
    assert "refused the login" in line
    assert "broker.password" in line


def test_an_unknown_host() -> None:
    line = refused("consume", "--broker", "stomp://no-such-host.invalid:61613", "--model", "sim:", *NO_PHOENIX, code=3)
    assert "'no-such-host.invalid'" in line
    assert "broker.url" in line
    line = refused("tail", "public:results", "--phoenix", "ws://no-such-host.invalid:4000/socket/websocket", code=3)
    assert "no-such-host.invalid" in line
    assert "phoenix.url" in line


def test_a_closed_port() -> None:
    port = free_port()
    line = refused("consume", "--broker", stomp(port), *NO_PHOENIX, code=3)
    assert f"nothing listens at {stomp(port)}" in line
    assert "infertool dev" in line
    for command in ("tail", "t"), ("consume",):
        line = refused(*command, "--phoenix", ws(port), code=3)
        assert f"nothing listens at {ws(port)}" in line
        assert "infertool dev" in line


def test_http_answers_where_a_broker_is_expected() -> None:
    with answering(HTTP % 400) as port:
        line = refused("consume", "--broker", stomp(port), *NO_PHOENIX, code=3)
    assert f"{stomp(port)} is an HTTP server, not a STOMP broker" in line


@pytest.mark.parametrize(
    ("status", "what", "advice"),
    [
        (200, "not as a Phoenix socket", "phoenix.url"),
        (403, "refused the connection", "PHOENIX_SERVICE_TOKEN"),
        (404, "no socket at", "/socket/websocket"),
        (500, "failed while connecting", "log"),
    ],
)
def test_a_phoenix_url_that_is_not_phoenix(status: int, what: str, advice: str) -> None:
    with answering(HTTP % status) as port:
        line = refused("tail", "public:results", "--phoenix", ws(port), code=3)
        assert f"{ws(port)}" in line
        assert what in line
        assert advice in line


@pytest.mark.parametrize("token_in", ["params", "protocol"])
def test_a_wrong_token(token_in: str) -> None:
    with HubProcess(token="the-right-one") as hub:
        env = {"INFERTOOL_PHOENIX__TOKEN_IN": token_in}
        line = refused("tail", "public:results", "--phoenix", hub.url, code=3, **env)
        assert "refused the connection (403)" in line
        assert "PHOENIX_SERVICE_TOKEN" in line
        with_token = f"{hub.url}?token={HUSH.replace('/', '%2F')}"
        line = refused("consume", "--phoenix", with_token, code=3, PHOENIX_SERVICE_TOKEN="", **env)
        assert "refused the connection (403)" in line


@pytest.mark.parametrize("command", [("tail", "nobody:knows"), ("consume", "--topic", "nobody:knows")])
def test_an_unmatched_topic(command: tuple[str, ...]) -> None:
    with HubProcess() as hub:
        line = refused(*command, "--phoenix", hub.url, code=3)
    assert f"joining nobody:knows at {hub.url} was refused: unmatched topic" in line


def test_servers_that_accept_and_never_answer() -> None:
    with silent() as port:
        line = refused("consume", "--broker", stomp(port), *NO_PHOENIX, code=3)
        assert f"{stomp(port)} accepts connections but did not answer CONNECT within 0.5 s" in line
        line = refused("tail", "t", "--phoenix", ws(port), code=3)
        assert f"{ws(port)} accepted the connection but did not answer within 0.5 s" in line


def test_the_password_is_masked_if_an_echo_server_returns_it() -> None:
    def echo(connection: socket.socket) -> None:
        while data := connection.recv(65536):
            connection.sendall(data)

    with raw_server(echo) as port:
        refused("consume", "--broker", stomp(port), *NO_PHOENIX, code=3)
        refused("tail", "t", "--phoenix", ws(port), code=3)


def test_secrets_are_masked_in_errors_of_a_server() -> None:
    body = f"ERROR\nmessage:no {HUSH} \x1b[2J here\n\njava.lang.SecurityException: {HUSH}\0".encode()
    with answering(body) as port:
        assert "refused the login: no ******** \\x1b[2J here" in refused(
            "consume", "--broker", stomp(port), *NO_PHOENIX, code=3
        )

    def phoenix(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 403 " + HUSH.encode() + b"\r\ncontent-length: 10\r\n\r\n" + HUSH.encode())

    with raw_server(phoenix) as port:
        refused("tail", "t", "--phoenix", ws(port), code=3)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["consume", "--model", "nowhere:predict"], 1, ["nowhere", "install it"]),
        (["consume", "--model", "sim:?failure_rat=1"], 1, ["failure_rat", "failure_rate"]),
        (["consume", "--exit-when-idle", "soon"], 2, ["'soon'", "10s"]),
        (["consume", "--broker", "http://localhost"], 2, ["'http'", "stomp+ssl"]),
        (["consume", "--broker", "stomp://localhost:notaport"], 2, ["--broker", "scheme://host:port"]),
        (["consume", "--phoenix", "http://localhost"], 2, ["phoenix.url", "ws://"]),
        (["tail", "t", "--for", "-1s"], 2, ["'-1s'", "10s"]),
        (["tail", "t", "--join-params", "{oops"], 2, ["--join-params", "JSON", "write"]),
        (["tail", "t", "--join-params", "[1]"], 2, ["--join-params", "object", "write"]),
        (["tail", "t", "--stats", "0"], 2, ["--stats", "5s"]),
        (["tail", "t", "--format", "{a"], 2, ["the { at character 1", "{{"]),
        (["tail", "t", "--fields", "a,,b"], 2, ["''", "prediction.class"]),
        (["tail", "t", "--fields", "a", "-o", "raw"], 2, ["--fields", "raw is"]),
        (["tail", "t", "--phoenix", "ws://a/", "--phoenix", "http://b"], 2, ["phoenix.url", "ws://"]),
        (["consume", "--config", "no-such.toml"], 2, ["no-such.toml", "config init"]),
        (["dev", "--no-broker", "--no-hub"], 2, ["--no-broker", "--no-hub"]),
        (["demo", "--for", "ever"], 2, ["'ever'", "10s"]),
        (["demo", "--burst", "--no-gateway"], 2, ["--burst", "--no-gateway"]),
        (["demo", "--burst", "--qps", "7"], 2, ["--burst", "--qps"]),
        (["demo", "--for", "0s"], 2, ["--for must be above 0"]),
        (["config", "path", "--log-format", "xml"], 2, ["--log-format 'xml'", "text or json"]),
        (["config", "show", "--profile"], 2, ["--profile needs a value"]),
        (["call", "q", "{}", "--header", "a=1", "--header", "a=2"], 2, ["--header gives a twice"]),
        (["loadgen", "--qps", "5", "--header", "a=1", "--header", "a=2"], 2, ["--header gives a twice"]),
        (["demo", "--burst", "--for", "0s"], 2, ["--for must be above 0"]),
        (["demo", "--metrics", "x"], 2, ["'x' is no address", "9464"]),
        (["dev", "--host", "no-such-host.invalid", "--no-gateway"], 3, ["not known"]),
        (["gateway", "--model", "fraud"], 2, ["--model number 1", "--model fraud=ai.fraud"]),
        (["gateway", "--model", "a=x", "--model", "a=y"], 2, ["--model gives a twice"]),
        (["submit", "f", "--timeout", "0s"], 2, ["--timeout must be above 0"]),
        (
            ["replay-dlq", "--since", "1h", "--until", "2h", "--broker", "stomp://127.0.0.1:1"],
            2,
            ["--since", "--until"],
        ),
    ],
)
def test_invalid_arguments(arguments: list[str], code: int, words: list[str]) -> None:
    line = one_line(infertool(*arguments, **SECRETS), code)
    assert not [word for word in words if word not in line], line


def test_the_error_for_an_invalid_filter_points_at_the_character() -> None:
    done = infertool("tail", "t", "--where", "status = 'FAILED'")
    assert done.returncode == 2
    first, expression, pointer = done.stderr.splitlines()
    assert first.startswith("infertool: this filter cannot work: ")
    assert expression.strip() == "status = 'FAILED'"
    assert pointer.index("^") == expression.index("=")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[broker]\nurk = "x"', ["broker.urk", "settings.toml", "'broker.url'"]),
        ("[brokr]\n", ["brokr", "settings.toml", "broker"]),
        ("[consume]\nconcurrency = 'many'", ["consume.concurrency", "settings.toml"]),
        ("[consume]\nconcurrency = -1", ["consume.concurrency"]),
        ("[consume\nx = 1", ["settings.toml", "line 1"]),
        (f'[broker]\npassword = "{HUSH}"\nheartbeat_s = "{HUSH}"', ["broker.heartbeat_s"]),
    ],
)
def test_invalid_settings(tmp_path: Path, text: str, words: list[str]) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    done = infertool("--config", str(file), "consume", **SECRETS)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert not [word for word in words if word not in line], line
    assert HUSH not in line


@pytest.mark.parametrize("flag", ["--stomp-port", "--http-port", "--gateway-port"])
def test_dev_on_a_port_that_is_taken(flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"--stomp-port": "0", "--http-port": "0", flag: str(port)}
        line = refused("dev", *(word for pair in ports.items() for word in pair), code=3)
    assert f"127.0.0.1:{port}: Address already in use" in line
    assert "another" in line


def test_tail_finds_nothing() -> None:
    with HubProcess() as hub:
        done = infertool("tail", "public:results", "--phoenix", hub.url, "--for", "0.3s")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.splitlines()[-1] == "infertool: the time ran out after 0 matching events"
