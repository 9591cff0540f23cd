"""A real Prometheus for tests, and promtool: Debian's package, a server of a test's own."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

from tests.support.install import apt
from tests.support.ports import free_port

_LONG_S = 240.0
_CONFIG = """global:
  scrape_interval: 500ms
  scrape_timeout: 500ms
scrape_configs:
  - job_name: infertool
    static_configs:
      - targets: {targets}
"""

Sample = tuple[dict[str, str], float]


def promtool(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool with `text` on its standard input."""
    apt("prometheus")
    return subprocess.run(["promtool", *arguments], input=text, capture_output=True, text=True, timeout=_LONG_S)


class Prometheus:
    """Scrapes `targets` (host:port) twice a second, and answers queries."""

    def __init__(self, folder: Path, targets: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._port = free_port()
        (folder / "prometheus.yml").write_text(_CONFIG.format(targets=json.dumps(list(targets))))

    def __enter__(self) -> Self:
        apt("prometheus")
        command = [
            "prometheus", f"--config.file={self._folder}/prometheus.yml", f"--storage.tsdb.path={self._folder}/data",
            f"--web.listen-address=127.0.0.1:{self._port}", "--enable-feature=exemplar-storage",
        ]  # fmt: skip
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def query(self, expression: str) -> list[Sample]:
        """Return the samples of `expression` now; none while it starts."""
        found = self._ask("query", query=expression)
        if found is None:
            return []
        if found["resultType"] == "scalar":
            return [({}, float(found["result"][1]))]
        return [(each["metric"], float(each["value"][1])) for each in found["result"]]

    def exemplars(self, metric: str) -> list[dict[str, str]]:
        """Return the labels of the exemplars of `metric` so far."""
        now = time.time()
        found = self._ask("query_exemplars", query=metric, start=str(now - 3600), end=str(now + 60)) or []
        return [each["labels"] for series in found for each in series["exemplars"]]

    def _ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer; None while it starts."""
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=_LONG_S) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refusal:
            if refusal.code == HTTPStatus.SERVICE_UNAVAILABLE:
                return None
            raise AssertionError(f"{parameters}: {refusal.read().decode()}") from None
        except OSError:
            return None

    def value(self, expression: str) -> float | None:
        """Return the one value of `expression`; None without any."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return found[0][1] if found else None

    def wait_for(self, expression: str, condition: Callable[[float], object]) -> float:
        """Wait until `expression` has one value that meets `condition`."""
        deadline = time.monotonic() + _LONG_S
        while True:
            value = self.value(expression)
            if value is not None and condition(value):
                return value
            assert time.monotonic() < deadline, (expression, value, self._log())
            assert self._process.poll() is None, self._log()
            time.sleep(0.1)

    def some(self, expression: str) -> list[Sample]:
        """Return the samples of `expression` once there are any: after a scrape that failed there are none."""
        self.wait_for(f"count({expression})", bool)
        return self.query(expression) or self.some(expression)

    def _log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")[-2000:]


def fetch(url: str, **headers: str) -> tuple[int, str]:
    """Return status and text of a GET request."""
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=_LONG_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


def fetch_json(url: str) -> Any:
    """Return the document behind `url`."""
    return json.loads(fetch(url)[1])
