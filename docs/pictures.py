"""Make docs/watch.png, the picture of `infertool watch`.

    .venv/bin/pip install pillow && .venv/bin/python -m docs.pictures

takes a minute and a half. What it shows is real: an embedded broker and channel server, a consumer with the
simulated model, and a producer whose rate changes. Only the alert rule is sent by hand. It needs
Chromium, which draws the picture from Textual's SVG.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from PIL import Image

from infertool import brokers
from infertool.devserver import processes
from infertool.load.book import SendBook
from infertool.load.producer import Producer
from infertool.phoenix.socket import PhoenixSocket
from infertool.settings import BrokerSettings, PhoenixSettings, Settings
from infertool.watch.app import WatchApp
from infertool.watch.bus import Bus
from infertool.watch.glyphs import UNICODE
from infertool.watch.keys import resolve
from infertool.watch.live import LiveSource
from infertool.watch.state import State

HOST = "127.0.0.1"
FOLDER = Path(__file__).parent
# Events a second, for so many seconds each.
RATES = (20, 35, 60, 90, 70, 45, 55)
STRETCH_S = 10.0
SIZE = (128, 34)
_COLOURS = 96
ALERT = {"rule": "failure rate", "state": "firing", "value": "7.1%", "threshold": "5%"}


def main() -> None:
    """Run a bus for a while, and take the picture."""
    with ExitStack() as stack:
        settings = _bus(stack)
        svg = asyncio.run(_watched(settings))
        _draw(svg, FOLDER / "watch.png")


def _bus(stack: ExitStack) -> Settings:
    broker = processes.start(processes.BROKER, host=HOST, port=0)
    stack.callback(broker.stop)
    hub = processes.start(processes.HUB, host=HOST, port=0)
    stack.callback(hub.stop)
    settings = Settings(
        broker=BrokerSettings(url=f"stomp://{HOST}:{broker.port}"),
        phoenix=PhoenixSettings(url=f"ws://{HOST}:{hub.port}/socket/websocket"),
    )
    consumer = subprocess.Popen(
        [
            sys.executable, "-m", "infertool", "--config", os.devnull, "--quiet", "consume",
            "--broker", settings.broker.url, "--phoenix", settings.phoenix.url,
            "--max-attempts", "1", "--concurrency", "64", "-o", "json",
        ],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    stack.callback(consumer.wait, 30)
    stack.callback(consumer.terminate)
    return settings


async def _watched(settings: Settings) -> str:
    topics = (settings.phoenix.result_topic, settings.phoenix.alert_topic)
    bus = Bus(State("production", settings.watch.keep), LiveSource(settings, topics))
    app = WatchApp([bus], keys=resolve({}), theme="dark", glyphs=UNICODE, folder=FOLDER)
    async with app.run_test(size=SIZE) as pilot:
        await asyncio.to_thread(_produce, settings)
        await pilot.press("down", "down", "down", "enter")
        await pilot.pause(0.5)
        svg = app.export_screenshot(title="infertool watch", simplify=True)
    await asyncio.to_thread(bus.stop)
    return svg


def _produce(settings: Settings) -> None:
    broker = brokers.open(settings.broker)
    broker.connect()
    for rate in RATES:
        producer = Producer(broker, SendBook(), queue=settings.broker.queue, rate=rate, seconds=STRETCH_S)
        producer.start()
        producer.join()
        if rate == max(RATES):
            _fire(settings)
    broker.close(5.0)


def _fire(settings: Settings) -> None:
    socket = PhoenixSocket(settings.phoenix)
    socket.connect()
    channel = socket.channel(settings.phoenix.topic, {}, on_message=lambda _frame: None)
    channel.join(5.0)
    channel.push("alert", ALERT).result(5.0)
    socket.close(1.0)


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
