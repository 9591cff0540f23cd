"""The parts of the dashboard that need no page: the filter language, what is kept, sketches of events."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.js.node import FOLDER
from tests.support.install import apt

pytestmark = pytest.mark.node


def test_units() -> None:
    if not shutil.which("node"):
        apt("nodejs")
    done = subprocess.run(["node", "--test", str(FOLDER / "units.test.mjs")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "# pass" in done.stdout
