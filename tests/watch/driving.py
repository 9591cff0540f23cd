"""Drives the view by keys alone, on a terminal of a given size."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from rich.console import Console
from textual.pilot import Pilot
from textual.widgets import Input

from infertool.watch.app import _SORT_EVERY, WatchApp
from infertool.watch.bus import Bus
from infertool.watch.formatting import UNICODE, Glyphs
from infertool.watch.keys import resolve

SNAPSHOTS = Path(__file__).parent / "snapshots"


@asynccontextmanager
async def driven(
    buses: Sequence[Bus],
    *,
    size: tuple[int, int] = (80, 24),
    folder: Path = Path(),
    glyphs: Glyphs = UNICODE,
    theme: str = "dark",
    keys: Mapping[str, object] | None = None,
) -> AsyncIterator[Pilot[None]]:
    """Run the view of `buses`."""
    app = WatchApp(buses, keys=resolve(keys or {}), theme=theme, glyphs=glyphs, folder=folder)
    async with app.run_test(size=size, notifications=True) as pilot:
        app.query_one(Input).cursor_blink = False
        await settled(pilot)
        yield pilot


async def press(pilot: Pilot[None], *keys: str) -> None:
    """Press keys one after another, each until the screen shows its effect."""
    await pilot.press(*keys)
    await settled(pilot)


async def seen(pilot: Pilot[None], text: str) -> bool:
    """Wait until the screen shows `text`, which comes a little later: a toast, the end of a process."""
    for _ in range(1200):
        if text in shown(pilot):
            return True
        await pilot.pause(0.05)
    return False


async def settled(pilot: Pilot[None]) -> None:
    """Wait until the screen shows all pending changes, also the header's figures and a new order."""
    for _ in range(2):
        await pilot.pause()
        for _ in range(_SORT_EVERY):
            assert isinstance(pilot.app, WatchApp)
            pilot.app.tick()
        await pilot.pause()


def shown(pilot: Pilot[None]) -> str:
    """Return the screen as text."""
    width, height = pilot.app.size
    console = Console(width=width, height=height, file=io.StringIO(), force_terminal=True, record=True)
    screens = pilot.app._background_screens
    console.print(pilot.app.screen._compositor.render_update(full=True, screen_stack=screens))
    return console.export_text()


def check_snapshot(pilot: Pilot[None], name: str) -> None:
    """Compare the screen with the SVG that is kept. UPDATE_SNAPSHOTS=1 keeps what shows: look at it before."""
    path = SNAPSHOTS / f"{name}.svg"
    svg = pilot.app.export_screenshot(title=name, simplify=True) + "\n"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.write_text(svg)
    if svg != path.read_text():
        actual = Path(tempfile.gettempdir()) / f"{name}.svg"
        actual.write_text(svg)
        raise AssertionError(f"the screen differs from {path}; it is {actual}:\n{shown(pilot)}")
