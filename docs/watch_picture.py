"""Make docs/watch.png, the picture of `infertool watch`.

    .venv/bin/pip install pillow && .venv/bin/python -m docs.watch_picture

takes a minute and a half. What it shows is real: an embedded broker and channel server, a consumer with the
simulated model, and a producer whose rate changes. Only the alert rule is sent by hand. It needs
Chromium, which draws the picture from Textual's SVG.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from PIL import Image

from infertool.settings import BrokerSettings, PhoenixSettings, Settings
from infertool.watch.app import WatchApp
from infertool.watch.bus import Bus, LiveSource
from infertool.watch.formatting import UNICODE
from infertool.watch.keys import resolve
from infertool.watch.state import State
from tests.js.dashboard import Service
from tests.support.embedded import EmbeddedBroker
from tests.support.hub import HubProcess
from tests.support.running import Running, infertool

FOLDER = Path(__file__).parent
# Events a second, for so many seconds each.
RATES = (20, 35, 60, 90, 70, 45, 55)
STRETCH_S = 10
SIZE = (128, 34)
_COLOURS = 96
ALERT = {"rule": "failure rate", "state": "firing", "value": "7.1%", "threshold": "5%"}


def main() -> None:
    """Run a bus for a while, and take the picture."""
    with ExitStack() as stack:
        hub = stack.enter_context(HubProcess())
        embedded = EmbeddedBroker().start()
        stack.callback(embedded.stop)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        consumer = Running(
            folder, "consume", "--broker", embedded.url, "--phoenix", hub.url,
            "--max-attempts", "1", "--concurrency", "64", "-o", "json",
        )  # fmt: skip
        stack.callback(consumer.finish)
        stack.callback(consumer.terminate)
        settings = Settings(broker=BrokerSettings(url=embedded.url), phoenix=PhoenixSettings(url=hub.url))
        svg = asyncio.run(_watched(settings, lambda: _produce(settings, hub)))
        _draw(svg, FOLDER / "watch.png")


async def _watched(settings: Settings, produce: Callable[[], None]) -> str:
    topics = (settings.phoenix.result_topic, settings.phoenix.alert_topic)
    bus = Bus(State("production", settings.watch.keep), LiveSource(settings, topics))
    app = WatchApp([bus], keys=resolve({}), theme="dark", glyphs=UNICODE, folder=FOLDER)
    async with app.run_test(size=SIZE) as pilot:
        await asyncio.to_thread(produce)
        await pilot.press("down", "down", "down", "enter")
        await pilot.pause(0.5)
        svg = app.export_screenshot(title="infertool watch", simplify=True)
    await asyncio.to_thread(bus.stop)
    return svg


def _produce(settings: Settings, hub: HubProcess) -> None:
    before = [f"{rate}:{STRETCH_S}s" for rate in RATES[:-2]]
    for stretches in (before, [f"{rate}:{STRETCH_S}s" for rate in RATES[-2:]]):
        stages = [part for stretch in stretches for part in ("--stage", stretch)]
        infertool("loadgen", "--broker", settings.broker.url, *stages, timeout_s=600)
        # A client that is silent for 60 s is dropped, so it comes anew.
        with Service(hub) as service:
            service.push("alert", ALERT)


def _draw(svg: str, path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("there is no Chromium to draw the picture with")
    width, height = (round(float(part)) for part in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    # The fonts the SVG names are on another host; the machine's own will do.
    page = f"<style>body{{margin:0}}</style>{re.sub(r'@font-face [{].*?[}]', '', svg, flags=re.DOTALL)}"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "watch.html"
        source.write_text(page)
        command = [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--window-size={width},{height}", f"--screenshot={path}", source.as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
    with Image.open(path) as picture:
        picture.quantize(_COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    main()
