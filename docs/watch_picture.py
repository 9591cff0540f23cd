"""Make docs/watch.png: `infertool watch` over an embedded bus with a consumer at work.

    .venv/bin/pip install pillow && .venv/bin/python -m docs.watch_picture

takes a minute and a half. Chromium draws the picture from Textual's SVG.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

from PIL import Image

from infertool import brokers
from infertool.load.book import SendBook
from infertool.load.producer import Producer
from infertool.settings import BrokerSettings, PhoenixSettings, Settings
from infertool.watch.app import WatchApp
from infertool.watch.bus import Bus
from infertool.watch.glyphs import UNICODE
from infertool.watch.keys import resolve
from infertool.watch.live import LiveSource
from infertool.watch.state import State
from tests.js.dashboard import Service
from tests.support.embedded import EmbeddedBroker
from tests.support.hub import HubProcess
from tests.support.install import apt
from tests.support.running import Running

PICTURE = Path(__file__).with_name("watch.png")
# Events a second, ten seconds each.
RATES = (20, 35, 60, 90, 70, 45, 55)
SECONDS_EACH = 10
SIZE = (128, 34)
COLOURS = 96


def main() -> None:
    """Run the bus, and take the picture while events still come."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        hub = stack.enter_context(HubProcess())
        embedded = EmbeddedBroker().start()
        stack.callback(embedded.stop)
        consumer = Running(
            folder / "log", "consume", "--broker", embedded.url, "--phoenix", hub.url,
            "--max-attempts", "1", "--concurrency", "64", "-o", "json",
        )  # fmt: skip
        stack.callback(consumer.finish)
        stack.callback(consumer.terminate)
        settings = Settings(broker=BrokerSettings(url=embedded.url), phoenix=PhoenixSettings(url=hub.url))
        draw(asyncio.run(watched(settings, hub)), folder / "watch.html")


async def watched(settings: Settings, hub: HubProcess) -> str:
    """Watch while events come; return the last screen as SVG."""
    topics = (settings.phoenix.result_topic, settings.phoenix.alert_topic)
    bus = Bus(State("production", settings.watch.keep), LiveSource(settings, topics))
    app = WatchApp([bus], keys=resolve({}), theme="dark", glyphs=UNICODE, folder=PICTURE.parent)
    async with app.run_test(size=SIZE) as pilot:
        await asyncio.to_thread(produce, settings, hub)
        await pilot.press("down", "down", "down", "enter")
        await pilot.pause(0.5)
        svg = app.export_screenshot(title="infertool watch", simplify=True)
    await asyncio.to_thread(bus.stop)
    return svg


def produce(settings: Settings, hub: HubProcess) -> None:
    """Send events at changing rates, and say once that a rule fires."""
    broker = brokers.open(settings.broker)
    broker.connect()
    for rate in RATES:
        producer = Producer(broker, SendBook(), queue=settings.broker.queue, rate=rate, seconds=SECONDS_EACH)
        producer.start()
        producer.join()
        if rate == max(RATES):
            with Service(hub) as alerts:
                alerts.push("alert", {"rule": "error_rate", "state": "firing", "value": 0.07, "threshold": 0.05})
    broker.close(5)


def draw(svg: str, page: Path) -> None:
    """Draw the picture, with the machine's own fonts: those that the SVG names are on another host."""
    apt("chromium")
    match = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert match, "Textual's SVG has no size"  # noqa: S101 - Textual gave it
    width, height = (round(float(part)) for part in match.groups())
    page.write_text(f"<style>body{{margin:0}}</style>{re.sub(r'@font-face [{].*?[}]', '', svg, flags=re.DOTALL)}")
    command = [
        "/usr/bin/chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        f"--window-size={width},{height}", f"--screenshot={PICTURE}", page.as_uri(),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    with Image.open(PICTURE) as picture:
        picture.quantize(COLOURS).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
