"""HDR's own JavaScript library reads our histograms, and finds the same in them."""

from __future__ import annotations

import json
import random
import shutil
import subprocess

import pytest

from infertool.telemetry.latencies import Latencies
from tests.js.node import FOLDER
from tests.js.packages import HISTOGRAM
from tests.support.install import apt, npm

pytestmark = pytest.mark.node


def test_another_tool_reads_the_same_percentiles() -> None:
    if not shutil.which("node"):
        apt("nodejs")
    rng = random.Random(5)
    latencies = Latencies()
    latencies.add([rng.lognormvariate(-3, 1) for _ in range(20_011)])
    command = ["node", str(FOLDER / "histogram.mjs"), str(npm(HISTOGRAM))]
    done = subprocess.run(command, input=latencies.encode(), capture_output=True, text=True, check=True, timeout=60)
    count, *read_us = json.loads(done.stdout)
    ours = latencies.percentiles()
    assert count == ours.count
    assert [value / 1000 for value in read_us] == [ours.p50, ours.p90, ours.p99, ours.p99_9, ours.max]
