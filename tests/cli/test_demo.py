"""`infertool demo` on a terminal, into a pipe, and for scripts."""

from __future__ import annotations

import json
import subprocess
import sys

import psutil
import pytest

from infertool.cli.demo.run import Demo
from tests.support.present import present
from tests.support.running import LONG, environment, infertool


def test_the_json_summary_adds_up() -> None:
    run = infertool("demo", "--for", "3s", "--qps", "40", "--no-gateway", "-o", "json")
    assert run.returncode == 0, run.stderr
    summary = json.loads(run.stdout)
    assert list(summary) == ["sent", "results", "failures", "dead_letters", "lost", "duplicates", "p50_ms", "p99_ms"]
    assert summary["sent"] == 120 == summary["results"] + summary["failures"]
    assert summary["dead_letters"] == summary["failures"]
    assert summary["lost"] == summary["duplicates"] == 0
    assert 0 < summary["p50_ms"] <= summary["p99_ms"]


def test_a_pipe_gets_a_line_for_each_event_and_the_summary() -> None:
    run = infertool("demo", "--for", "2s")
    assert run.returncode == 0, run.stderr
    *events, summary = run.stdout.splitlines()
    assert len(events) == 40
    assert "40 sent = " in summary
    assert "0 lost" in summary
    assert "dashboard: http://127.0.0.1:" in run.stderr
    assert "gateway: curl http://127.0.0.1:" in run.stderr


def test_a_reader_that_closes_the_pipe_ends_the_demo_quietly() -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "infertool", "demo", "--for", "10m"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    assert present(demo.stdout).readline()
    present(demo.stdout).close()
    assert demo.wait(LONG) == 0
    assert b"Traceback" not in present(demo.stderr).read()


def test_child_processes_end_with_the_demo_however_it_ends() -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "infertool", "demo", "--for", "10m"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment(),
    )  # fmt: skip
    assert present(demo.stdout).readline()
    started = psutil.Process(demo.pid).children(recursive=True)
    demo.kill()
    demo.communicate()
    assert len(started) == 4
    _, alive = psutil.wait_procs(started, timeout=LONG)
    assert alive == []


def test_where_no_event_came_no_times_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """As after Ctrl-C before the first one."""
    demo = Demo(seconds=1, rate=1, metrics=None, as_json=False, quiet=True, has_gateway=False, gateway_port=None)
    counts = dict.fromkeys(("sent", "results", "failures", "dead_letters", "lost", "duplicates"), 0)
    demo._print({**counts, "p50_ms": None, "p99_ms": None})
    assert capsys.readouterr().out.endswith("from send to screen p50 -, p99 -\n")
