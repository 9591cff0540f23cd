"""Selection, dependencies, time-outs and the end of a run of checks."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from infertool.app.doctor.check import CATEGORIES, NAMES, Check, selection
from infertool.app.doctor.result import Finding, Status, fail, ok, skip, warn, worst
from infertool.app.doctor.runner import Runner
from infertool.errors import RefusedError, UsageError


def runner() -> Runner:
    return Runner(lambda _check: None)


def check(name: str, finding: Finding, *needs: Check, any_of: tuple[Check, ...] = ()) -> Check:
    return Check(name=name, run=lambda: finding, needs=needs, needs_any=any_of)


def hanging(until: threading.Event, timeout_s: float) -> Check:
    def hang() -> Finding:
        until.wait()
        return ok("never")

    return Check(name="model.load", run=hang, timeout_s=timeout_s)


def statuses(*checks: Check) -> dict[str, Status]:
    return {result.name: result.status for result in runner().run(checks)}


def test_what_a_failed_check_makes_senseless_is_skipped_and_says_why() -> None:
    tcp = check("broker.tcp", fail("refused", "check it"))
    tls = check("broker.tls", ok("1.3"), tcp)
    login = check("broker.login", ok("in"), tls)
    results = runner().run([tcp, tls, login])
    assert [result.status for result in results] == [Status.FAIL, Status.SKIP, Status.SKIP]
    assert {result.finding.value for result in results[1:]} == {"not checked: broker.tcp failed"}


@pytest.mark.parametrize("finding", [skip("no TLS"), warn("soon", "renew"), ok("well")])
def test_what_only_warned_or_had_nothing_to_check_holds_up_nothing(finding: Finding) -> None:
    tls = check("broker.tls", finding)
    assert statuses(tls, check("broker.login", ok("in"), tls))["broker.login"] is Status.OK


def test_one_host_of_several_is_enough() -> None:
    a, b = (Check(name="broker.login", subject=name, run=lambda: fail("no", "do")) for name in "ab")
    c = Check(name="broker.login", subject="c", run=lambda: ok("in"))
    assert statuses(a, b, check("broker.queue", ok("may"), any_of=(a, b)))["broker.queue"] is Status.SKIP
    assert statuses(a, b, c, check("broker.queue", ok("may"), any_of=(a, b, c)))["broker.queue"] is Status.OK


def test_a_check_that_hangs_fails_and_the_others_run() -> None:
    hangs = threading.Event()
    stuck = hanging(hangs, 0.1)
    results = runner().run([stuck, check("paths.disk", ok("room"))])
    hangs.set()
    assert results[0].finding.value == "no end after 0.1 s"
    assert results[1].status is Status.OK


@pytest.mark.parametrize(
    ("error", "value", "hint"),
    [
        (RefusedError("a refused the login", address="a", advice="check broker.user"), "a refused the login", "check"),
        (ZeroDivisionError("division"), "the check itself failed: ZeroDivisionError: division", "report"),
    ],
)
def test_what_a_check_raises_is_a_failure(error: RefusedError | ZeroDivisionError, value: str, hint: str) -> None:
    def raises() -> Finding:
        raise error

    (result,) = runner().run([Check(name="broker.login", run=raises)])
    assert (result.status, result.finding.value) == (Status.FAIL, value)
    assert hint in result.finding.hint


def test_stop_ends_a_run_within_a_check_that_hangs() -> None:
    running, hangs = threading.Event(), threading.Event()
    run = Runner(lambda _check: running.set())

    def stop() -> None:
        if running.wait(60):
            run.stop()

    threading.Thread(target=stop).start()
    stuck = hanging(hangs, 600)
    results = run.run([stuck, check("paths.disk", ok("room"))])
    hangs.set()
    assert [result.finding.value for result in results] == ["interrupted"]
    assert run.wait(0)


def test_a_signal_between_a_look_and_the_wait_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The main thread waits, and a signal that comes just before that does not interrupt it: it must look by itself."""
    run, hangs = runner(), threading.Event()
    wait = run._changed.wait

    def interrupted(timeout_s: float | None) -> bool:
        run.stop()
        return wait(timeout_s)

    monkeypatch.setattr(run._changed, "wait", interrupted)
    stuck = hanging(hangs, 3600)
    running = threading.Thread(target=run.run, args=([stuck],), daemon=True)
    running.start()
    running.join(60)
    assert not running.is_alive()
    hangs.set()


def test_only_takes_what_is_needed_too_and_skip_goes_before_it() -> None:
    load = check("settings.load", ok("well"))
    tcp = check("broker.tcp", ok("well"), load)
    login = check("broker.login", ok("well"), tcp)
    disk = check("paths.disk", ok("well"), load)
    every = [load, tcp, login, disk]

    def names(only: Sequence[str] = (), left_out: Sequence[str] = ()) -> list[str]:
        return [each.name for each in selection(only, left_out).select(every)]

    assert names() == [each.name for each in every]
    assert names(["broker.login"]) == ["settings.load", "broker.tcp", "broker.login"]
    assert names(["broker.login, paths"], ["broker.tcp"]) == ["settings.load", "broker.login", "paths.disk"]
    assert names(left_out=["broker,settings"]) == ["paths.disk"]
    assert names(["paths"], ["paths", "settings"]) == []


@pytest.mark.parametrize(
    ("name", "advice"),
    [("brokr", "did you mean broker?"), ("broker.logn", "did you mean broker.login?"), ("xyz", "categories are")],
)
def test_an_unknown_name_is_refused_and_the_nearest_one_named(name: str, advice: str) -> None:
    for only, left_out in (([name], []), ([], ["paths", name])):
        with pytest.raises(UsageError, match=r"no check or category") as caught:
            selection(only, left_out)
        assert advice in str(caught.value)


def test_categories_and_the_worst_status() -> None:
    assert CATEGORIES[:3] == ("settings", "environment", "broker")
    assert all(name.count(".") == 1 for name in NAMES)
    results = runner().run([check("paths.disk", warn("little", "make room")), check("paths.state", skip("none"))])
    assert worst(results) is Status.WARN
    assert worst(results[:1]) is Status.SKIP or worst(results[:1]) is Status.OK


def test_what_is_no_utf8_can_be_written_in_every_form() -> None:
    odd = Check(name="broker.tcp", subject="a\udcff", run=lambda: fail("no \udcff", "look at \udcff"))
    [result, blocked] = runner().run([odd, check("broker.tls", ok("1.3"), odd)])
    for each in (result.subject, result.finding.value, result.finding.hint, blocked.finding.value):
        each.encode()
