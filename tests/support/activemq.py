"""A real ActiveMQ Classic for tests: installed from Debian's packages, started in about 3 s, no systemd."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.install import apt
from tests.support.ports import free_port, wait_for_port

HOME = Path("/usr/share/activemq")
JAR = HOME / "bin" / "activemq.jar"
PACKAGES = ("activemq", "default-jre-headless", "libxstream-java", "libjettison-java")
TEMPLATE = Path(__file__).parents[2] / "fixtures" / "activemq" / "activemq.xml"
# Half the CPU time of a test run; for a benchmark the broker is compiled as in production.
QUICK_START = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
# jms-map-json, the form statistics are asked for in, needs these on the broker's class path.
JSON_JARS = ("xstream", "jettison", "xpp3")


class ActiveMQ:
    """One broker on ports of its own; its data survive `kill` and `stop`, and end with `remove`."""

    def __init__(self, base: Path, java: Sequence[str] = QUICK_START) -> None:
        self.base = base
        self._java = java
        self.stomp_port = free_port()
        self.openwire_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        for folder in ("conf", "data", "tmp", "lib"):
            (base / folder).mkdir(parents=True)
        config = TEMPLATE.read_text()
        config = config.replace("@STOMP_PORT@", str(self.stomp_port))
        config = config.replace("@OPENWIRE_PORT@", str(self.openwire_port))
        (base / "conf" / "activemq.xml").write_text(config)
        for name in JSON_JARS:
            (base / "lib" / f"{name}.jar").symlink_to(f"/usr/share/java/{name}.jar")

    def __str__(self) -> str:
        status = self._process.poll() if self._process else "ended"
        return f"ActiveMQ, status {status}:\n{(self.base / 'broker.log').read_text(errors='replace')[-2000:]}"

    @property
    def url(self) -> str:
        return f"stomp://127.0.0.1:{self.stomp_port}"

    @property
    def openwire_url(self) -> str:
        return f"tcp://127.0.0.1:{self.openwire_port}"

    def start(self) -> None:
        command = [
            "java", "-Xms512M", "-Xmx1G", *self._java, "-Djava.awt.headless=true",
            f"-Djava.io.tmpdir={self.base}/tmp",
            f"-Dactivemq.home={HOME}", f"-Dactivemq.base={self.base}",
            f"-Dactivemq.conf={self.base}/conf", f"-Dactivemq.data={self.base}/data",
            "-jar", str(JAR), "start", f"xbean:file:{self.base}/conf/activemq.xml",
        ]  # fmt: skip
        with (self.base / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_for_port(self.stomp_port, 240)
        wait_for_port(self.openwire_port, 240)

    def stop(self) -> None:
        """Stop as an administrator would; messages stay on disk."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End as a power cut would."""
        self._end(signal.SIGKILL)

    def _end(self, sig: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(sig)
        try:
            self._process.wait(120)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.base, ignore_errors=True)


def install() -> None:
    """Install ActiveMQ when this is root on Debian, else say how."""
    jars = [JAR, *(Path(f"/usr/share/java/{name}.jar") for name in JSON_JARS)]
    if not (shutil.which("java") and all(jar.exists() for jar in jars)):
        apt(*PACKAGES)
