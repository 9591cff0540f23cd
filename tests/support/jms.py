"""Java JMS peers: ActiveMQ's console as a consumer, and a producer of any kind of message."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.activemq import HOME, JAR, ActiveMQ

_LOGGING = """log4j.rootLogger=INFO, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%m%n
"""
_RECEIVED = "consumer-1 Received "


def consume(broker: ActiveMQ, queue: str, count: int, folder: Path) -> list[str]:
    """Take `count` messages off `queue`; return their texts in order, of a message that has none its id."""
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


@dataclass(frozen=True)
class Jms:
    """A JMS message. `kind` is text, bytes, map, stream, object or plain; `body` is a str, bytes, dict or list."""

    queue: str
    body: object
    properties: Mapping[str, object] = field(default_factory=dict)
    kind: str = "text"

    def line(self) -> str:
        body = base64.b64encode(self.body).decode() if isinstance(self.body, bytes) else self.body
        queue = self.queue.removeprefix("/queue/")
        return json.dumps({"queue": queue, "kind": self.kind, "body": body, "properties": self.properties}) + "\n"


def produce(broker: ActiveMQ, messages: Iterable[Jms]) -> None:
    """Send `messages` in order, persistent. It takes a JVM some seconds to start: send many at once."""
    command = ["java", "-cp", f"{HOME}/lib/*", str(Path(__file__).with_name("Produce.java")), broker.openwire_url]
    lines = "".join(message.line() for message in messages)
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
