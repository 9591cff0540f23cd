"""STOMP clients that nobody here wrote hold one conversation with the embedded broker, and with ActiveMQ.

Five messages are sent with receipts; two are acked, one nacked, two left; a second connection finds the two as
redelivered, the one among the dead letters, and of two transactions only the committed one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.install import apt, npm

CLIENTS = Path(__file__).parent / "clients"
STOMPIT = {"stompit": "1.0.0"}


def converse(command: list[str], port: int, queue: str, *arguments: str, **environment: str) -> dict[str, object]:
    done = subprocess.run(
        [*command, str(port), queue, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


def entry(body: str, *, redelivered: str = "", origin: str = "") -> dict[str, str]:
    return {"body": body, "redelivered": redelivered, "origin": origin}


def expected(queue: str) -> dict[str, object]:
    return {
        "received": [entry(f"m{number}") for number in range(5)],
        "again": [entry("m3", redelivered="true"), entry("m4", redelivered="true")],
        "dead": [entry("m2", origin=f"/queue/{queue}")],
        "committed": [entry("t0"), entry("t1"), entry("last")],
    }


@pytest.mark.node
def test_node_stompit(port: int, queue: str) -> None:
    modules = npm(STOMPIT) / "node_modules"
    command = ["node", str(CLIENTS / "node_stompit.js")]
    assert converse(command, port, queue, NODE_PATH=str(modules)) == expected(queue)


def test_ruby_stomp(port: int, queue: str) -> None:
    apt("ruby", "ruby-stomp")
    assert converse(["ruby", str(CLIENTS / "ruby_stomp.rb")], port, queue) == expected(queue)


def test_perl_net_stomp(port: int, queue: str) -> None:
    apt("perl", "libnet-stomp-perl")
    assert converse(["perl", str(CLIENTS / "perl_net_stomp.pl")], port, queue) == expected(queue)


@pytest.mark.parametrize("version", ["1.1", "1.2"])
def test_python_stomp(port: int, queue: str, version: str) -> None:
    command = [sys.executable, str(CLIENTS / "python_stomp.py")]
    assert converse(command, port, queue, version) == expected(queue)


def test_python_stomp_1_0(port: int, queue: str) -> None:
    """STOMP 1.0 has no NACK: that message comes back with the others."""
    command = [sys.executable, str(CLIENTS / "python_stomp.py")]
    left = [entry(body, redelivered="true") for body in ("m2", "m3", "m4")]
    assert converse(command, port, queue, "1.0") == expected(queue) | {"again": left, "dead": []}
