"""Make docs/dashboard.png: the dashboard of an embedded bus with a consumer at work, in headless Chromium.

    .venv/bin/pip install pillow && .venv/bin/python -m docs.dashboard_picture

takes four minutes, as the plots show five. It needs Chromium and Node, as the tests do.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from PIL import Image

from tests.js.dashboard import Service, opened, wait
from tests.support.embedded import EmbeddedBroker
from tests.support.hub import HubProcess
from tests.support.running import Running, infertool

PICTURE = Path(__file__).with_name("dashboard.png")
RATES = (40, 65, 50, 90, 30, 75, 110, 60)
SECONDS_EACH = 30
SIZE = {"scheme": "light", "width": 1280, "height": 800}


def main() -> None:
    """Run the bus, and take the picture while events still come."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        hub = stack.enter_context(HubProcess())
        embedded = EmbeddedBroker().start()
        stack.callback(embedded.stop)
        page = stack.enter_context(opened(hub.http_url, folder / "profile"))
        page.send("look", **SIZE)
        consumer = Running(
            folder / "log", "consume", "--broker", embedded.url, "--phoenix", hub.url,
            "--max-attempts", "1", "--concurrency", "64", "-o", "json",
        )  # fmt: skip
        stack.callback(consumer.finish)
        stack.callback(consumer.terminate)
        stages = [part for rate in RATES for part in ("--stage", f"{rate}:{SECONDS_EACH}s")]
        load = ["loadgen", "--broker", embedded.url]
        infertool(*load, *stages, timeout_s=600)
        alerts = stack.enter_context(Service(hub))
        alerts.push("alert", {"rule": "error_rate", "state": "resolved", "value": 0.04, "threshold": 0.05})
        last = Running(folder / "log", *load, "--qps", str(RATES[-1]), "--duration", "12s", "-o", "json")
        stack.callback(last.finish)
        time.sleep(10)  # by then the toast of the resolved rule has left
        alerts.push("alert", {"rule": "dlq_depth", "state": "firing", "value": 740, "threshold": 500})
        wait(page, ".toast", "dlq_depth")
        page.send("screenshot", path=str(PICTURE))
        page.wait_for("screenshot")
    with Image.open(PICTURE) as picture:
        picture.quantize(256).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
