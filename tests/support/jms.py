"""A Java JMS consumer nobody here wrote: ActiveMQ's console. It shows the text of a TextMessage, of others the id."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.activemq import HOME, JAR, ActiveMQ

_LOGGING = """log4j.rootLogger=INFO, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%m%n
"""
_RECEIVED = "consumer-1 Received "


def consume(broker: ActiveMQ, queue: str, count: int, folder: Path) -> list[str]:
    """Take `count` messages off `queue`; return their texts in order."""
    logging = folder / "log4j.properties"
    logging.write_text(_LOGGING)
    command = [
        "java", f"-Dlog4j.configuration=file:{logging}", f"-Dactivemq.home={HOME}", f"-Dactivemq.base={broker.base}",
        f"-Dactivemq.conf={broker.base}/conf", f"-Dactivemq.data={folder}", "-jar", str(JAR), "consumer",
        "--brokerUrl", broker.openwire_url, "--user", "admin", "--password", "admin",
        "--destination", queue.replace("/queue/", "queue://"), "--messageCount", str(count),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, stdin=subprocess.DEVNULL)
    return [line.removeprefix(_RECEIVED) for line in done.stdout.splitlines() if line.startswith(_RECEIVED)]
