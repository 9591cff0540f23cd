"""No password and no token appears in a process list or in the output of a consumer."""

from __future__ import annotations

import json
from pathlib import Path

import psutil

from tests.support.present import present
from tests.support.running import Running, infertool

HUSH = "Hush-me/31"
TRACES = (HUSH, "Hush-me", "SHVzaC1tZS8z")
SECRETS = {"ACTIVEMQ_USER": "admin", "ACTIVEMQ_PASSWORD": HUSH, "PHOENIX_SERVICE_TOKEN": HUSH}


def command_lines(pid: int) -> str:
    """Return the command lines of a process and its descendants."""
    process = psutil.Process(pid)
    return "\n".join(" ".join(each.cmdline()) for each in [process, *process.children(recursive=True)])


def test_dev_and_a_consumer_of_it(tmp_path: Path) -> None:
    dev = Running(
        tmp_path, "dev", "--stomp-port", "0", "--http-port", "0", "--no-gateway", "-o", "json", "--debug", **SECRETS
    )
    urls = json.loads(present(dev.process.stdout).readline())
    state = {"INFERTOOL_CONSUME__STATE_DIR": str(tmp_path / "state")}
    consumer = Running(
        tmp_path, "consume", "--broker", urls["stomp"], "--phoenix", urls["phoenix"], "--debug", "--log-format", "json",
        **SECRETS, **state,
    )  # fmt: skip
    consumer.wait_for("phoenix connected")
    consumer.wait_for("broker connected")
    shown = command_lines(dev.process.pid) + command_lines(consumer.process.pid)
    assert shown.count("infertool.embedded") == 2
    for process in (consumer, dev):
        process.terminate()
        process.process.wait(120)
        shown += present(process.process.stdout).read().decode() + process.log.read_text()
    assert not [trace for trace in TRACES if trace in shown]


def test_config_show() -> None:
    for form in ("table", "json", "toml"):
        done = infertool("config", "show", "-o", form, **SECRETS)
        assert done.returncode == 0
        assert not [trace for trace in TRACES if trace in done.stdout + done.stderr]
        assert "********" in done.stdout
