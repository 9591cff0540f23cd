"""The forms of the output: each parses, shows the value of each check, and names its fault."""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from infertool.app.doctor.check import NAMES
from infertool.app.doctor.result import Finding, Result, Status, fail, ok, skip, warn
from infertool.cli.doctor import view
from tests.support.phoenix_fake import raw_server
from tests.support.present import present
from tests.support.running import LONG, Running, environment, infertool
from tests.support.tmux import Tmux

DOCS = Path(__file__).parents[3] / "docs" / "doctor.md"
DOWN = ("--only", "broker,paths", "--broker", "stomp://127.0.0.1:1")


def result(name: str, finding: Finding, subject: str = "") -> Result:
    return Result(name=name, subject=subject, finding=finding, took_s=0.25)


RESULTS = [
    result("broker.tcp", ok("connected in 3 ms", 0.003, "seconds"), "a:1"),
    result("broker.login", fail('refused: "no"\nsecond | line', "check the user"), "a:1"),
    result("broker.queue", Finding(status=Status.SKIP, value="not checked: x failed", blocked_by="x failed")),
    result("broker.depth", Finding(status=Status.SKIP, value="not checked: x failed", blocked_by="x failed")),
    result("model.sample", skip("nothing to ask")),
    result("paths.disk", warn("500 MiB free", "make room " * 20, 524_288_000, "bytes")),
]
_SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)')
# A Nagios plugin's line: text, a bar, and 'label'=value[unit] ...
_NAGIOS = re.compile(r"INFERTOOL (OK|WARNING|CRITICAL) - [^|\n]+ \| ((?:'[^'=\n]+'=[-+.\de]+[sB]?(?: |$))*)")


def test_nagios_is_one_line_with_figures() -> None:
    match = _NAGIOS.fullmatch(view.nagios(RESULTS))
    assert match
    assert match[1] == "CRITICAL"
    assert 'broker.login a:1: refused: "no" second / line' in match[0]
    assert match[2] == "'broker.tcp a:1'=0.003s 'paths.disk'=524288000B"
    assert present(_NAGIOS.fullmatch(view.nagios([RESULTS[-1]])))[1] == "WARNING"
    assert present(_NAGIOS.fullmatch(view.nagios([RESULTS[0]])))[1] == "OK"


def test_prometheus_text_parses_with_hostile_labels() -> None:
    hostile = result("broker.tcp", ok("x", 1.0, "seconds"), 'a"b\\c\nd')
    lines = view.prometheus([*RESULTS, hostile])
    samples = [_SAMPLE.fullmatch(line) for line in lines if not line.startswith("#")]
    assert all(samples), lines
    values = {(match[1], match[2]): float(match[3]) for match in samples if match}
    assert len(values) == len(samples)
    assert values["infertool_doctor_status", 'check="broker.login",subject="a:1"'] == 2
    assert values["infertool_doctor_value", 'check="paths.disk",subject="",unit="bytes"'] == 524_288_000
    assert values["infertool_doctor_status", r'check="broker.tcp",subject="a\"b\\c\nd"'] == 0
    metrics = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(metrics) == len(set(metrics)) == 4


def test_json_has_value_hint_and_documentation() -> None:
    document = json.loads(json.dumps(view.document(RESULTS)))
    assert (document["status"], document["counts"]) == ("fail", {"ok": 1, "warn": 1, "fail": 1, "skip": 3})
    assert document["checks"][1]["docs"] == "docs/doctor.md#broker-login"
    assert document["checks"][0]["docs"] is None
    assert all(check["value"] for check in document["checks"])


@pytest.mark.parametrize("width", [0, 40, 80, 120])
def test_the_table_fits(width: int) -> None:
    lines = view.table(RESULTS, width)
    text = "\n".join(lines)
    assert not [line for line in lines if width >= 80 and len(line) > width]
    assert "\\nsecond" in text
    assert "docs/doctor.md#broker-login" in text
    assert "2 checks" in text
    assert "queue, depth: not checked, x failed" in " ".join(text.split())
    assert lines[-1] == "1 ok, 1 warnings, 1 failed, 3 skipped"


@pytest.mark.parametrize(
    ("form", "code", "begin"),
    [
        ("table", 1, "settings\n"),
        ("json", 1, '{"status":"fail"'),
        ("prometheus", 1, "# HELP infertool_doctor_status"),
        ("nagios", 2, "INFERTOOL CRITICAL - broker.tcp 127.0.0.1:1: nothing listens there"),
    ],
)
def test_each_form_and_its_exit_code(form: str, code: int, begin: str) -> None:
    done = infertool("doctor", *DOWN, "-o", form)
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.startswith(begin)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--only", "brokr"), "did you mean broker?"),
        (("--skip", "paths.disc"), "did you mean paths.disk?"),
        (("--only", "paths", "--skip", "paths,settings"), "leave no check"),
        (("--wait", "soon"), "is not a duration"),
        (("--sample", "{"), "--sample is not JSON"),
        (("--sample", "@/not/there"), "cannot be read"),
        (("--bundle", "/not/there/x.zip"), "cannot be written"),
        (("--bundle", __file__), "is there already"),
    ],
)
def test_usage_errors(options: tuple[Any, ...], text: str) -> None:
    done = infertool("doctor", *options)
    assert (done.returncode, text in done.stderr, done.stdout) == (2, True, ""), done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_shows_what_was_found(tmp_path: Path, number: signal.Signals) -> None:
    reached, done = threading.Event(), threading.Event()

    def silent(_connection: socket.socket) -> None:
        reached.set()
        done.wait(LONG)

    with raw_server(silent) as port:
        process = Running(
            tmp_path, "doctor", "--only", "broker", "-o", "json", "--broker", f"stomp://127.0.0.1:{port}",
            INFERTOOL_BROKER__CONNECT_TIMEOUT_S="600",
        ).process  # fmt: skip
        assert reached.wait(LONG)
        process.send_signal(number)
        output, _ = process.communicate(timeout=LONG)
        done.set()
    assert process.returncode == 130
    checks = json.loads(output)["checks"]
    assert checks[0]["check"] == "settings.load"
    assert checks[-1]["check"].startswith("broker.")


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal(tmp_path: Path, width: int) -> None:
    import sys

    command = [sys.executable, "-m", "infertool", "doctor", *DOWN]
    with Tmux(command, folder=tmp_path, width=width, height=40, env=environment()) as terminal:
        screen = terminal.wait("exit code 1", timeout_s=LONG)
    assert "→ check broker.url" in screen
    assert "checking" not in screen


def test_each_check_has_its_anchor_in_the_documentation() -> None:
    headings = re.findall(r"^### (.+)$", DOCS.read_text(), re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    wanted = {result(name, ok("x")).anchor.partition("#")[2] for name in NAMES}
    assert wanted == anchors
