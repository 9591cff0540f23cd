"""`infertool submit` against a real HTTP server: obeys, resumes, and says what became of each line."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from infertool.cli.submit.lines import LONGEST, read
from infertool.cli.submit.target import request_headers
from infertool.gateway.headers import Headers
from infertool.secret import Secret
from tests.support.ports import free_port
from tests.support.present import present
from tests.support.running import Running, environment, infertool
from tests.support.scripted_http import Asked, ScriptedHttp, Told, problem, serving


class Requests:
    """Accepts each idempotency key once, as a gateway does. `inferred` counts by key."""

    def __init__(self) -> None:
        self.inferred: Counter[str] = Counter()

    def answer(self, asked: Asked) -> Told:
        key = asked.headers["idempotency-key"]
        known = key in self.inferred
        if not known:
            self.inferred[key] += 1
        value = {"event_id": key[:12], "status": "succeeded", "prediction": {"got": json.loads(asked.body)}}
        return Told(200, value, {"idempotency-replayed": "true"} if known else {})


def written(tmp_path: Path, *bodies: object) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_text("".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in bodies))
    return path


def submitted(server: ScriptedHttp, *arguments: object, **given: str) -> subprocess.CompletedProcess[str]:
    return infertool("submit", *map(str, arguments), "--url", server.url, **given)


def told(done: subprocess.CompletedProcess[str]) -> dict[int, dict[str, Any]]:
    return {each["line"]: each for each in map(json.loads, done.stdout.splitlines())}


def test_each_line_is_a_request_and_running_again_repeats_nothing(tmp_path: Path) -> None:
    requests = Requests()
    path = written(tmp_path, *({"n": number} for number in range(50)), "", '{"n": 1.50}', {"n": 0})
    key = tmp_path / "key"
    key.write_text("ik_secret\n")
    with serving(requests.answer) as server:
        options = ("--follow", "--class", "batch", "--model", "fraud", "--key-file", key, "--timeout", "90s")
        first = submitted(server, path, *options)
        again = submitted(server, path, *options)
        other = submitted(server, path, *options, "--job", "other")
    assert first.returncode == again.returncode == other.returncode == 0, first.stderr
    lines = told(first)
    assert sorted(lines) == [*range(1, 51), 52, 53]  # the empty line is none
    assert lines[7]["prediction"] == {"got": {"n": 6}}
    assert told(again) == lines
    # The same body on another line, and the same line of another job, are requests of their own.
    assert len(requests.inferred) == 2 * 52
    assert set(requests.inferred.values()) == {1}
    assert "52 lines: 52 succeeded;" in first.stderr
    assert "52 of them the gateway had already" in again.stderr
    sent = {
        "infertool-class": "batch", "infertool-model": "fraud", "authorization": "Bearer ik_secret",
        "request-timeout": "90", "prefer": "wait=20", "content-type": "application/json",
    }  # fmt: skip
    assert all(sent.items() <= each.headers.items() for each in server.asked)
    assert {each.path for each in server.asked} == {"/v1/infer"}
    assert any(each.body == b'{"n": 1.50}' for each in server.asked)
    assert "ik_secret" not in first.stdout + first.stderr


@pytest.mark.parametrize("more", range(-2, 12))
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf"])
def test_a_line_at_the_limit_takes_no_other_with_it(more: int, end: bytes, begin: bytes) -> None:
    """Neither the line behind it, nor itself where it is no longer than the limit; also as the last of the file."""
    longest = b'"%s"' % (b"x" * (LONGEST + more - 2))
    found = list(read(io.BytesIO(begin + longest + end + (b"2\n3\n" if end else b""))))
    assert [line.number for line in found] == ([1, 2, 3] if end else [1])
    assert [line.body for line in found[1:]] == ([b"2", b"3"] if end else [])
    assert (found[0].body, bool(found[0].fault)) == ((b"", True) if more > 0 else (longest, False))


def test_a_line_of_spaces_beyond_the_limit_is_not_cut() -> None:
    found = list(read(io.BytesIO(b" " * (LONGEST + 6) + b"12345\n2\n")))
    assert [(line.number, line.body, bool(line.fault)) for line in found] == [(1, b"", True), (2, b"2", False)]


def test_an_empty_answer_is_a_line_of_json(tmp_path: Path) -> None:
    with serving(lambda _asked: Told(202, {})) as server:
        done = submitted(server, written(tmp_path, 1))
    assert told(done) == {1: {"line": 1}}


def test_without_follow_acceptance_is_enough(tmp_path: Path) -> None:
    with serving(lambda _: Told(202, {"event_id": "a", "status": "queued", "position": 3})) as server:
        done = submitted(server, written(tmp_path, 1, 2))
    assert done.returncode == 0, done.stderr
    assert told(done)[2] == {"line": 2, "event_id": "a", "status": "queued", "position": 3}
    assert {each.headers["prefer"] for each in server.asked} == {"respond-async"}
    assert "2 accepted" in done.stderr


def test_it_waits_as_retry_after_tells_and_polls_what_takes_long(tmp_path: Path) -> None:
    times: list[tuple[str, float]] = []

    queued = {"event_id": "a", "status": "queued"}
    answers = iter(
        [
            problem(429, "over_budget", retry_after="2"),
            problem(503, "broker_away"),
            Told(0),
            Told(500, {"reason": "internal"}),
            Told(202, queued, {"location": "/v1/requests/a", "retry-after": "1"}),
            Told(202, queued, {"retry-after": "1"}),
            Told(200, {"event_id": "a", "status": "succeeded", "prediction": 1}),
        ]
    )

    def answer(asked: Asked) -> Told:
        times.append((asked.method, time.monotonic()))
        return next(answers)

    with serving(answer) as server:
        done = submitted(server, written(tmp_path, {"n": 1}), "--follow")
    assert done.returncode == 0, done.stderr
    assert [method for method, _ in times] == [*["POST"] * 5, "GET", "GET"]
    assert times[1][1] - times[0][1] >= 2.0
    assert times[6][1] - times[5][1] >= 1.0
    assert len({each.headers["idempotency-key"] for each in server.asked if each.method == "POST"}) == 1
    assert "waited 2 times as the gateway told" in done.stderr


@pytest.mark.long
def test_it_says_what_it_waits_for_where_no_line_ends(tmp_path: Path) -> None:
    path = written(tmp_path, 1, 2)

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        began = time.monotonic()

        def answer(_: Asked) -> Told:
            if time.monotonic() - began < 20:
                return problem(429, "too_many_in_flight", retry_after="1")
            return Told(200, {"event_id": "a", "status": "succeeded"})

        with serving(answer) as server:
            return submitted(server, path, *options)

    with ThreadPoolExecutor() as pool:
        silent, loud = pool.submit(run, "--quiet"), pool.submit(run)
        quiet, done = silent.result(), loud.result()
    assert done.returncode == quiet.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("no line has ended for ")]
    assert len(said) == 1
    assert said[0].endswith("wait as the gateway told: 429 too_many_in_flight: because of too_many_in_flight")
    assert quiet.stderr == ""


def test_a_result_is_fetched_from_the_gateway_that_has_it(tmp_path: Path) -> None:
    result = {"event_id": "b", "status": "succeeded", "prediction": 1}
    polls = iter([Told(202, {"status": "started"}, {"retry-after": "1"}), Told(200, result)])
    with serving(lambda _: next(polls)) as owner:
        elsewhere = f"{owner.url}/v1/requests/b"

        def answer(asked: Asked) -> Told:
            if asked.method == "POST":
                return Told(202, {"event_id": "b", "status": "queued"}, {"location": "/v1/requests/b"})
            return Told(307, None, {"location": elsewhere})

        with serving(answer) as front:
            done = submitted(front, written(tmp_path, 1), "--follow", INFERTOOL_GATEWAY__CLIENT_KEY="ik_1")
    assert done.returncode == 0, done.stderr
    assert told(done)[1] == {"line": 1, **result}
    assert [(each.method, each.path) for each in owner.asked] == [("GET", "/v1/requests/b")] * 2
    assert {each.headers["authorization"] for each in owner.asked + front.asked} == {"Bearer ik_1"}


@pytest.mark.parametrize("location", ["/v1/requests/a", "/ai/v1/requests/a", "http://front.example/ai/v1/requests/a"])
@pytest.mark.parametrize("url", ["/ai", "/ai/v1/infer", ""])
def test_a_result_is_fetched_below_the_path_of_the_url(tmp_path: Path, url: str, location: str) -> None:
    """Wherever the gateway says that it is: one behind a proxy does not know the path."""

    def answer(asked: Asked) -> Told:
        base = "/ai" if url else ""
        if (asked.method, asked.path) == ("POST", f"{base}/v1/infer"):
            return Told(202, {"event_id": "a", "status": "queued"}, {"location": location})
        if (asked.method, asked.path) == ("GET", f"{base}/v1/requests/a"):
            return Told(200, {"event_id": "a", "status": "succeeded", "prediction": 1})
        return Told(404)

    with serving(answer) as server:
        done = infertool("submit", str(written(tmp_path, 1)), "--url", f"{server.url}{url}", "--follow")
    assert done.returncode == 0, done.stderr
    assert told(done)[1]["prediction"] == 1


@pytest.mark.parametrize("answer", [problem(404, "unknown_request"), problem(410, "gone"), Told(200, b"no JSON")])
def test_what_was_accepted_is_never_refused(tmp_path: Path, answer: Told) -> None:
    def answered(asked: Asked) -> Told:
        accepted = Told(202, {"event_id": "a", "status": "queued"}, {"location": "/v1/requests/a"})
        return accepted if asked.method == "POST" else answer

    with serving(answered) as server:
        done = submitted(server, written(tmp_path, 1), "--follow")
    assert done.returncode == 1
    line = told(done)[1]
    assert line["status"] == "unknown"
    assert "1 unknown" in done.stderr
    assert (line["event_id"], line["http_status"]) == ("a", answer.status)


def test_lines_without_a_result_are_named(tmp_path: Path) -> None:
    answers = {
        1: Told(200, {"status": "succeeded"}),
        2: problem(500, "inference_failed"),
        3: problem(504, "expired"),
        4: problem(413, "body_too_large"),
        5: problem(422, "idempotency_key_reused"),
        6: Told(200, b"\xff\x00"),
    }
    bodies = [{"n": number} for number in answers]
    path = written(tmp_path, *bodies[:3], "{broken", *bodies[3:], "\x00")
    with serving(lambda asked: answers[json.loads(asked.body)["n"]]) as server:
        done = submitted(server, path, "--follow")
    assert done.returncode == 1
    lines = told(done)
    assert {number: each["status"] for number, each in lines.items()} == {
        1: "succeeded", 2: "failed", 3: "expired", 4: "invalid", 5: "refused", 6: "refused", 7: "refused", 8: "invalid",
    }  # fmt: skip
    assert (lines[5]["http_status"], lines[5]["reason"]) == (413, "body_too_large")
    assert "line 4 is left out: it is not JSON" in done.stderr
    assert "7 of 8 lines have no result" in done.stderr
    assert len(server.asked) == 6


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (problem(401, "invalid_credentials"), "401 invalid_credentials"),
        (problem(403, "class_forbidden"), "403 class_forbidden"),
        (problem(404, "unknown_model"), "404 unknown_model"),
    ],
)
def test_what_all_lines_would_get_ends_it(tmp_path: Path, answer: Told, said: str) -> None:
    with serving(lambda _: answer) as server:
        done = submitted(server, written(tmp_path, *range(500)), "--concurrency", "4")
    assert done.returncode == 3
    assert said in done.stderr
    assert len(server.asked) <= 4
    assert done.stdout == ""


def test_a_gateway_that_is_away(tmp_path: Path) -> None:
    done = infertool("submit", str(written(tmp_path, 1)), "--url", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 3
    assert "cannot be reached" in done.stderr
    with serving(lambda _: Told(0)) as server:
        done = submitted(server, written(tmp_path, 1), "--patience", "1s")
    assert done.returncode == 3
    assert "run the same command again" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_and_run_again_nothing_is_inferred_twice(tmp_path: Path, number: signal.Signals) -> None:
    requests = Requests()

    def answer(asked: Asked) -> Told:
        found = requests.answer(asked)
        return Told(found.status, found.value, found.headers, after_s=0.02)

    path = written(tmp_path, *({"n": each} for each in range(300)))
    with serving(answer) as server:
        first = Running(tmp_path / "first", "submit", str(path), "--url", server.url, "--follow", "--concurrency", "4")
        deadline = time.monotonic() + 120
        while len(server.asked) < 60:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        first.process.send_signal(number)
        first.process.communicate(timeout=120)
        assert first.process.returncode == (-9 if number == signal.SIGKILL else 130)
        assert len(server.asked) < 300
        again = submitted(server, path, "--follow")
    assert again.returncode == 0, again.stderr
    assert sorted(told(again)) == list(range(1, 301))
    assert len(requests.inferred) == 300
    if number != signal.SIGKILL:
        assert "it repeats nothing" in first.log.read_text()


def test_standard_input_may_be_slow_and_stdout_may_be_closed(tmp_path: Path) -> None:
    requests = Requests()
    with serving(requests.answer) as server:
        command = [
            sys.executable,
            "-m",
            "infertool",
            "submit",
            "-",
            "--url",
            server.url,
            "--follow",
            "--concurrency",
            "2",
        ]
        slow = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
        )
        assert slow.stdin
        assert slow.stdout
        for number in range(3):
            slow.stdin.write(b'{"n": %d}\n' % number)
            slow.stdin.flush()
            # Each result comes before the next line does.
            assert json.loads(slow.stdout.readline())["line"] == number + 1
        # It waits for another line: a signal ends it all the same.
        slow.send_signal(signal.SIGINT)
        assert slow.wait(120) == 130
        for stream in (slow.stdin, slow.stdout, present(slow.stderr)):
            stream.close()
        path = written(tmp_path, *range(2000))
        head = subprocess.run(
            f"{' '.join(command)} < {path} | head -1", shell=True, capture_output=True, env=environment(), timeout=120
        )
    assert head.stdout.count(b"\n") == 1
    assert b"Traceback" not in head.stderr
    # It has not submitted all lines, and says so.
    assert b"lines were submitted; run the same command again" in head.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["missing.jsonl"],
        ["{path}", "--url", "ftp://h"],
        ["{path}", "--url", "http://user:secret@h"],
        ["{path}", "--url", "http://127.0.0.1:1/v1/infer?key=secret"],
        ["{path}", "--class", "a\nb"],
        ["{path}", "--patience", "soon"],
    ],
)
def test_what_it_does_not_start_with(tmp_path: Path, arguments: list[str]) -> None:
    path = written(tmp_path, 1)
    done = infertool("submit", *(each.replace("{path}", str(path)) for each in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert "secret" not in done.stderr


@pytest.mark.parametrize(
    ("expires_s", "told_s"),
    [(20.0, 20.0), (0.25, 0.25), (1e-6, 0.001), (1_080_000.0, 1_080_000.0), (1e9, 999_999_999.0)],
)
def test_a_gateway_takes_any_timeout(expires_s: float, told_s: float) -> None:
    sent = request_headers(Secret(), None, None, expires_s)["Request-Timeout"]
    assert Headers({"request-timeout": sent}).seconds("request-timeout") == told_s
