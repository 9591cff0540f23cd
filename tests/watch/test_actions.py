"""Every key does what the help says. The app runs as on a terminal; only the bus's clock stands still."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from infertool.watch.bus import Bus
from infertool.watch.dialogs import FilterBar
from infertool.watch.eventlist import EventList
from infertool.watch.keys import ACTIONS
from tests.support.present import present
from tests.watch.driving import driven, press, seen, settled, shown
from tests.watch.samples import bus, failure, result


def filled(name: str = "production", **options: Any) -> Bus:
    made = bus(name, **options)
    made.state.take([result(n, ago=100.0 - n) for n in range(1, 61)])
    made.state.take([failure(n, ago=90.0 - n) for n in range(61, 71)])
    return made


def run(steps: Coroutine[None, None, None]) -> None:
    asyncio.run(steps)


def test_the_help_lists_every_key_as_it_is_set() -> None:
    async def steps() -> None:
        async with driven([filled()], size=(100, 50), keys={"pause": ["p", "f6"]}) as pilot:
            await press(pilot, "?")
            text = shown(pilot)
            assert "p f6 " in text
            assert all(action.meaning in text for action in ACTIONS)
            await press(pilot, "escape", "p")
            assert "PAUSED" in shown(pilot)

    run(steps())


def test_space_holds_the_view_and_loses_nothing() -> None:
    async def steps() -> None:
        made = filled()
        async with driven([made]) as pilot:
            await press(pilot, "space")
            made.state.take([result(n) for n in range(100, 130)])
            await settled(pilot)
            held = shown(pilot)
            assert "PAUSED, 30 waiting" in held
            assert "req-0129" not in held
            assert "100 in all" in held
            await press(pilot, "space")
            assert "req-0129" in shown(pilot)
            assert made.state.results.count == 90

    run(steps())


def test_slash_filters_as_it_is_typed_and_marks_what_is_broken() -> None:
    async def steps() -> None:
        made = filled()
        async with driven([made]) as pilot:
            await press(pilot, "/", *"request_id == 'req-0007'")
            assert made.state.results.count == 1
            await press(pilot, "backspace")
            assert "✗ column" in shown(pilot)
            await press(pilot, "enter")
            assert pilot.app.screen.query_one(FilterBar).has_class("-open")
            await press(pilot, "'", "enter")
            assert "filter: request_id == 'req-0007'" in shown(pilot)
            assert not pilot.app.screen.query_one(FilterBar).has_class("-open")
            await press(pilot, "escape")
            assert made.state.results.count == 60
            await press(pilot, "/", *"processing_ms")
            assert "not true or false" in shown(pilot)

    run(steps())


def test_enter_shows_all_of_an_event_and_escape_closes_it() -> None:
    async def steps() -> None:
        async with driven([filled()]) as pilot:
            await press(pilot, "down", "down", "enter")
            assert '"request_id": "req-0058"' in shown(pilot)
            await press(pilot, "end")
            assert '"request_id": "req-0058"' in shown(pilot)
            await press(pilot, "escape")
            assert "confidence  " in shown(pilot)
            await press(pilot, "enter", "enter")
            assert "confidence  " in shown(pilot)

    run(steps())


def test_the_detail_beside_the_list_follows_the_cursor() -> None:
    async def steps() -> None:
        async with driven([filled()], size=(130, 30)) as pilot:
            await press(pilot, "enter", "down")
            assert '"request_id": "req-0059"' in shown(pilot)

    run(steps())


def test_the_cursor_and_its_keys() -> None:
    async def steps() -> None:
        made = filled()
        listing = made.state.results
        async with driven([made]) as pilot:
            page = listing.height
            for key, row in [
                ("down", 1), ("j", 2), ("up", 1), ("k", 0), ("pagedown", page), ("pageup", 0), ("end", 59), ("g", 0),
                ("G", 59), ("home", 0),
            ]:  # fmt: skip
                await press(pilot, key)
                assert listing.cursor == row, key

    run(steps())


def test_f_stays_on_the_row_or_at_the_newest() -> None:
    async def steps() -> None:
        made = filled()
        async with driven([made]) as pilot:
            await press(pilot, "f")
            assert "list held" in shown(pilot)
            made.state.take([result(500)])
            await settled(pilot)
            assert present(made.state.results.selected()).name == "req-0060"
            await press(pilot, "f")
            assert present(made.state.results.selected()).name == "req-0500"

    run(steps())


def test_s_sorts_the_results() -> None:
    async def steps() -> None:
        made = filled()
        async with driven([made]) as pilot:
            for word in ("slowest first", "least confident first", "by class"):
                await press(pilot, "s")
                assert word in shown(pilot)
            await press(pilot, "s")
            assert "results ─" in shown(pilot).replace("━", "─")

    run(steps())


def test_tab_goes_round_the_panes() -> None:
    async def steps() -> None:
        async with driven([filled()], size=(130, 30)) as pilot:
            focused = []
            for key in ("tab", "tab", "shift+tab", "enter", "tab", "tab", "tab"):
                await press(pilot, key)
                focused.append(present(pilot.app.screen.focused).id)
            assert focused == ["alerts", "results", "alerts", "alerts", "detail", "results", "alerts"]

    run(steps())


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def traced() -> Bus:
    made = bus(trace_url="http://traces/t/{trace_id}?x=1")
    made.state.take([result(1), result(2, traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")])
    return made


def test_o_opens_the_trace_and_copies_its_address_where_no_browser_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    url = f"http://traces/t/{TRACE}?x=1"

    async def steps() -> None:
        async with driven([traced()]) as pilot:
            monkeypatch.delenv("BROWSER", raising=False)
            written: list[str] = []
            monkeypatch.setattr(pilot.app._driver, "write", written.append)
            await press(pilot, "o")
            assert await seen(pilot, "There is no browser here.")
            (code,) = [re.fullmatch(r"\x1b]52;c;(.*)\x07", each) for each in written if each.startswith("\x1b]52")]
            assert base64.b64decode(present(code)[1]).decode() == url
            opened: list[str] = []
            monkeypatch.setenv("BROWSER", "some")
            monkeypatch.setattr(pilot.app, "open_url", opened.append)
            await press(pilot, "o", "enter")
            assert await seen(pilot, "Opened")
            assert opened == [url]
            assert f"trace        {TRACE}" in shown(pilot)
            await press(pilot, "escape", "down", "o")
            assert await seen(pilot, "Select an event with a trace first.")
        async with driven([filled()]) as pilot:
            await press(pilot, "o")
            assert await seen(pilot, "Set telemetry.trace_url")

    run(steps())


def written_in(folder: Path) -> list[list[dict[str, Any]]]:
    """Return the events of each file, of the newest file first."""
    return [[json.loads(line) for line in path.read_text().splitlines()] for path in sorted(folder.iterdir())[::-1]]


def test_e_writes_the_list_as_it_shows(tmp_path: Path) -> None:
    async def steps() -> None:
        async with driven([filled()], folder=tmp_path) as pilot:
            await press(pilot, "/", *"processing_ms > 300.0", "enter", "s", "e")
            await press(pilot, "tab", "e")
        first, second = written_in(tmp_path)
        assert [set(each) for each in first] == [{"topic", "event", "payload", "at"}] * len(first)
        times = [each["payload"]["processing_ms"] for each in first]
        assert times == sorted(times, reverse=True)
        assert min(times) > 300
        assert second == []

    run(steps())
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_e_says_why_it_cannot_write(tmp_path: Path) -> None:
    async def steps() -> None:
        async with driven([filled()], folder=tmp_path / "missing") as pilot:
            await press(pilot, "e")
            assert await seen(pilot, "cannot be written")

    run(steps())


def test_c_copies_the_event_by_osc_52(monkeypatch: pytest.MonkeyPatch) -> None:
    async def steps() -> None:
        async with driven([filled()]) as pilot:
            written: list[str] = []
            monkeypatch.setattr(pilot.app._driver, "write", written.append)
            await press(pilot, "down", "c")
            (code,) = [re.fullmatch(r"\x1b]52;c;(.*)\x07", each) for each in written if each.startswith("\x1b]52")]
            assert json.loads(base64.b64decode(present(code)[1]))["payload"]["request_id"] == "req-0059"

    run(steps())


def test_b_shows_the_next_bus() -> None:
    async def steps() -> None:
        other = bus("staging")
        other.state.take([result(777)])
        async with driven([filled(), other]) as pilot:
            assert "[production]" in shown(pilot)
            await press(pilot, "b")
            assert "[staging]" in shown(pilot)
            assert "req-0777" in shown(pilot)
            await press(pilot, "b")
            assert "req-0060" in shown(pilot)

    run(steps())


def test_t_changes_the_theme_and_the_palette_has_every_action() -> None:
    async def steps() -> None:
        async with driven([filled()]) as pilot:
            await press(pilot, "t")
            assert pilot.app.theme == "light"
            await press(pilot, "ctrl+p", *"theme", "enter")
            await settled(pilot)
            assert pilot.app.theme == "dark"
            titles = {command.title for command in pilot.app.get_system_commands(pilot.app.screen)}
            assert len(titles) == len(ACTIONS) - 1

    run(steps())


@pytest.mark.parametrize("keys", [("q",), ("ctrl+c",), ("/", "q", "ctrl+c"), ("?", "ctrl+c")], ids="-".join)
def test_leaving(keys: tuple[Any, ...]) -> None:
    async def steps() -> None:
        async with driven([filled()]) as pilot:
            for key in keys[:-1]:
                await press(pilot, key)
            assert pilot.app.is_running
            await pilot.press(keys[-1])
            await pilot.pause()
            assert pilot.app._exit

    run(steps())


def test_the_mouse_selects_opens_and_scrolls() -> None:
    async def steps() -> None:
        made = filled()
        async with driven([made]) as pilot:
            await pilot.click("#results", offset=(5, 5))
            assert made.state.results.cursor == 3
            await pilot.click("#results", offset=(5, 5), times=2)
            await settled(pilot)
            assert '"request_id"' in shown(pilot)
            await press(pilot, "escape")
            pilot.app.screen.query_one("#results", EventList).on_mouse_scroll_down()
            assert made.state.results.top == 3
            await pilot.click("FooterKey")
            assert made.state.results.paused

    run(steps())


def test_any_size_down_to_almost_nothing() -> None:
    async def steps() -> None:
        async with driven([filled()]) as pilot:
            for size in [(20, 5), (1, 1), (80, 24), (300, 90), (79, 24), (81, 25)]:
                await pilot.resize_terminal(*size)
                small = size[0] < 80 or size[1] < 24
                assert await seen(pilot, f"{size[0]}x{size[1]} is too small"[: size[0]] if small else "req-0060")
            await press(pilot, "down")

    run(steps())


def test_what_a_filter_or_a_name_holds_is_no_markup(tmp_path: Path) -> None:
    async def steps() -> None:
        made = bus("[red]x[/red]")
        made.state.take([result(1, request_id="[bold]y[/]", odd=[1])])
        async with driven([made]) as pilot:
            await press(pilot, "/", *"odd[0] == 1", "enter")
            text = shown(pilot)
            assert "filter: odd[0] == 1" in text
            assert "[red]x[/red]" in text
            assert "[bold]y[/]" in text

    run(steps())
