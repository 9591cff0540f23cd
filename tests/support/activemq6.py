"""A real ActiveMQ 6 for tests, set up like the ActiveMQ 5.17 of tests/support/activemq.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.support import maven
from tests.support.activemq import QUICK_START
from tests.support.serverprocess import ServerProcess

_LAUNCHER = Path(__file__).parents[2] / "fixtures" / "activemq6" / "Launch.java"


class ActiveMQ6(ServerProcess):
    """One ActiveMQ 6; its user is admin, its password admin."""

    def configure(self) -> None:
        (self.base / "tmp").mkdir()

    def command(self) -> Sequence[str]:
        installed = maven.activemq_6(_LAUNCHER)
        return [
            "java", "-Xms128M", "-Xmx768M", *QUICK_START, "-Djava.awt.headless=true",
            f"-Djava.io.tmpdir={self.base}/tmp", "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-cp", f"{installed}:{installed}/lib/*", "Launch", str(self.stomp_port), f"{self.base}/data",
        ]  # fmt: skip
