"""Help is fast and has an example for each command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from infertool.cli import subcommands
from tests.support.running import environment

HEAVY = (
    "textual", "stomp", "websocket", "msgspec", "orjson", "cel", "rich", "starlette", "uvicorn", "websockets", "hdrh",
    "resvg_py", "opentelemetry", "joserfc", "httptools", "confluent_kafka",
)  # fmt: skip
COMMANDS = [
    "consume",
    "call",
    "submit",
    "tail",
    "loadgen",
    "dev",
    "demo",
    "serve-model",
    "doctor",
    "config",
    "config show",
    "config init",
    "config path",
    "loadgen report",
    "gateway",
    "gateway keys",
    "gateway keys add",
    "gateway keys list",
    "gateway keys revoke",
    "gateway keys rotate",
    "gateway webhooks",
    "rabbitmq",
    "rabbitmq declare",
    "alerts",
    "alerts check",
    "alerts test",
    "alerts export",
    "dashboards",
    "dashboards grafana",
    "alerts backtest",
    "alerts list",
    "alerts silence",
]
PROGRAM = f"""
import sys
from infertool.cli.main import run
try:
    run()
except SystemExit as end:
    assert end.code in (0, None), end.code
print("loaded:", *({{name.partition(".")[0] for name in sys.modules}} & set({HEAVY!r})))
"""


def help_of(command: str) -> str:
    """Return the help; the process that prints it must not import heavy packages."""
    arguments = [sys.executable, "-c", PROGRAM, *command.split(), "--help"]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment(), timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    text, _, loaded = done.stdout.rpartition("loaded:")
    assert loaded == "\n"
    return text


def test_every_subcommand_is_listed() -> None:
    folder = Path(subcommands.__file__).parent
    packages = {path.parent.name.replace("_", "-") for path in folder.glob("*/command.py")}
    assert packages == {*subcommands.SINGLE, *subcommands.GROUPS}


def test_a_subcommand_imports_no_other() -> None:
    code = (
        "import sys\nfrom infertool.cli.main import run\ntry: run()\nexcept SystemExit: pass\n"
        "print(*(name for name in sys.modules if name.startswith('infertool.cli.') and name.endswith('.command')))"
    )
    done = subprocess.run([sys.executable, "-c", code, "consume", "--help"], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "infertool.cli.consume.command"


def test_help_names_every_subcommand() -> None:
    text = help_of("")
    assert not [command for command in COMMANDS[:7] if f"\n  {command} " not in text]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_subcommand_shows_an_example(command: str) -> None:
    text = help_of(command)
    assert f"Usage: infertool {command}" in text
    _, _, example = text.partition("Example")
    assert "infertool " in example
    assert command in example
