"""The description of the API: valid, complete, and kept by the server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from infertool.gateway.problem import Reason
from tests.gateway.front_server import LONG, FrontServer
from tests.gateway.test_http_command import ready
from tests.support.embedded import EmbeddedBroker
from tests.support.responder import Responder
from tests.support.running import Running

# What this server answers is right, and the tool cannot know it: what became of a request that was given up is told.
_NOT_CHECKED = ("ignored_auth", "use_after_free")
# A request may have headers that nobody knows. A tensor has as many elements as its shape says, which no schema tells.
_CONFIG = """
[generation]
allow-extra-parameters = false

[[operations]]
include-path-regex = "/v2/.*/infer"
checks.positive_data_acceptance.enabled = false
"""
# That a key is of another request (422), and a deadline of a millisecond too early (504), is the caller's fault, which
# the tool takes for the server's.
_REAL = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "504"]
positive_data_acceptance.expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "422", "429", "504"]
"""


def test_the_description_is_valid_and_names_every_reason() -> None:
    import openapi_spec_validator  # two seconds, for this test only

    with FrontServer(keys_file="keys", jwks_url="https://x/", tls_client_ca_file="ca") as server:
        described = httpx.get(f"{server.url}/openapi.json").json()
    openapi_spec_validator.validate(described)
    told = str(described["paths"])
    missing = {each for each in Reason if f"`{each.name.lower()}`" not in told}
    # What no described path answers with.
    assert missing == {Reason.NOT_FOUND, Reason.METHOD_NOT_ALLOWED, Reason.INVALID_PARAMETER}


def schemathesis(url: str, folder: Path, config: str) -> None:
    """Run the tool over what the server says of itself; it must find nothing."""
    (folder / "schemathesis.toml").write_text(config)
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json", "--seed", "1",
        "--max-examples", "15", "--suppress-health-check", "all", "--exclude-checks", ",".join(_NOT_CHECKED),
        "--request-timeout", "60",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=5 * LONG, env={**os.environ, "NO_COLOR": "1"}
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.long
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    with FrontServer(wait_s=0.5, max_wait_s=0.5) as server:
        server.engine.remembers_keys = False
        schemathesis(server.url, tmp_path, _CONFIG)


@pytest.mark.long
def test_schemathesis_finds_nothing_in_a_gateway_with_a_broker_and_consumers(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    environ = {"WAIT_S": "0.5", "MAX_WAIT_S": "0.5", "TIMEOUT_S": "5"}
    gateway = Running(
        tmp_path / "gateway", "gateway", "--listen", "0", "--broker", embedded_broker.url,
        "--model", "a=schema.in", "--model", "b=schema.in",
        "--state-dir", str(tmp_path / "state"), "-o", "json",
        **{f"INFERTOOL_GATEWAY__{name}": value for name, value in environ.items()},
    )  # fmt: skip
    try:
        with Responder(embedded_broker.url, "schema.in"):
            schemathesis(ready(gateway)["url"], tmp_path, _CONFIG + _REAL)
        assert "fault" not in gateway.log.read_text()
    finally:
        gateway.kill()
