"""`infertool config` as a user runs it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from infertool.settings.display import init_text
from infertool.settings.keys import types

ROOT = Path(__file__).parents[2]
S = "s3cret"


@dataclass(frozen=True)
class Run:
    """Runs infertool in a folder, with no settings but a test's own."""

    folder: Path
    environ: dict[str, str]

    def __call__(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "infertool", *arguments]
        environ = self.environ | variables
        return subprocess.run(
            command, cwd=self.folder, env=environ, capture_output=True, text=True, timeout=60, check=False
        )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    environ = {
        key: value for key, value in os.environ.items() if not key.startswith(("INFERTOOL_", "ACTIVEMQ_", "XDG_"))
    }
    environ |= {"HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    return Run(tmp_path, environ)


def test_show_prints_an_aligned_line_for_each_key(run: Run) -> None:
    done = run("config", "show", ACTIVEMQ_PASSWORD=S, INFERTOOL_BROKER__URL=f"stomp://u:{S}@h:1")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert S not in done.stdout
    assert lines[0].split() == ["broker.url", '"stomp://u:********@h:1"', "INFERTOOL_BROKER__URL"]
    assert lines[2].split() == ["broker.password", '"********"', "ACTIVEMQ_PASSWORD"]
    assert len({line.index(line.split()[1]) for line in lines}) == 1


def test_show_as_json_has_value_and_origin(run: Run) -> None:
    done = run("config", "show", "-o", "json", INFERTOOL_CONSUME__CONCURRENCY="3")
    shown = json.loads(done.stdout)
    assert shown["consume.concurrency"] == {"value": 3, "origin": "INFERTOOL_CONSUME__CONCURRENCY"}
    assert shown["broker.tls_verify"] == {"value": True, "origin": "default"}


def test_show_as_toml_is_toml(run: Run) -> None:
    done = run("config", "show", "-o", "toml", PHOENIX_SERVICE_TOKEN=S)
    assert tomllib.loads(done.stdout)["broker"]["queue"] == "/queue/ai.events.raw"
    assert '# token = "********"' in done.stdout


def test_show_on_a_terminal_is_a_table(run: Run) -> None:
    reader, writer = pty.openpty()
    command = [sys.executable, "-m", "infertool", "config", "show"]
    environ = run.environ | {"COLUMNS": "120", "TERM": "xterm"}
    with os.fdopen(writer, "wb"):
        process = subprocess.Popen(command, cwd=run.folder, env=environ, stdout=writer)
    shown = b""
    try:
        while chunk := os.read(reader, 65536):
            shown += chunk
    except OSError:  # Linux reports the closed terminal as an error
        pass
    finally:
        os.close(reader)
    assert process.wait(60) == 0
    assert b"setting" in shown
    assert b"\x1b[1m" in shown
    assert b"broker.url" in shown


def test_init_writes_the_file_once(run: Run) -> None:
    assert run("config", "init").returncode == 0
    written = run.folder / "infertool.toml"
    assert written.read_text() == init_text()
    written.write_text("")
    again = run("config", "init")
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == "infertool: infertool.toml is there already; add --force to overwrite it\n"
    assert run("config", "init", "--force").returncode == 0
    assert written.read_text() == init_text()


def test_init_of_an_unwritable_file(run: Run) -> None:
    done = run("config", "init", "no/such/folder.toml")
    assert done.returncode == 2
    assert done.stderr == "infertool: no/such/folder.toml cannot be written: No such file or directory\n"


def test_path_shows_the_candidates_and_the_used_file(run: Run) -> None:
    users = f"{run.folder}/home/.config/infertool/infertool.toml"
    assert run("config", "path").stdout == f"infertool.toml\tnot there\n{users}\tnot there\n"
    Path(users).parent.mkdir(parents=True)
    Path(users).touch()
    assert run("config", "path").stdout == f"infertool.toml\tnot there\n{users}\tused\n"
    run("config", "init")
    assert run("config", "path").stdout == f"infertool.toml\tused\n{users}\tnot used\n"
    assert run("--config", users, "config", "path").stdout == f"{users}\tused\n"


def test_profile_and_config_options_reach_it(run: Run) -> None:
    (run.folder / "other.toml").write_text("[profile.p.broker]\nqueue = '/queue/q'")
    done = run("--config", "other.toml", "--profile", "p", "config", "show")
    assert f'{"broker.queue":<{max(map(len, types()))}}  "/queue/q"' in done.stdout
    assert "other.toml:2" in done.stdout
    wrong = run("--config", "other.toml", "--profile", "x", "config", "show")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "infertool: there is no profile x; other.toml has p\n"


@pytest.mark.parametrize("command", [[], ["show"], ["init"], ["path"]])
def test_help_has_an_example(run: Run, command: list[str]) -> None:
    assert "Example: infertool" in run("config", *command, "--help").stdout
