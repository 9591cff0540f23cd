"""`infertool` as a process that must not outlive the one that started it, which holds the other end of a pipe."""

from __future__ import annotations

import sys

from infertool.cli.main import run
from infertool.workers.process import end_with_parent

if __name__ == "__main__":
    end_with_parent(int(sys.argv.pop(1)))
    run()
