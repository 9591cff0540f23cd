"""Above the brokers nothing speaks a broker's language: names of headers, prefixes of queues, selectors, limits.

The embedded broker is a STOMP broker, so it does.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import infertool

PACKAGE = Path(infertool.__file__).parent
BELOW = ("brokers/", "embedded/", "phoenix/", "models/")

FOREIGN = re.compile(
    r"/queue/|/topic/|/temp-queue/|activemq\.|amq-msg-type|AMQ_|JMSX|JMSMessageID|JMSCorrelationID|"
    r"\b(?:correlation-id|reply-to|content-type|content-length|message-id|prefetch-count|original-destination|"
    r"originalExpiration|dlqDeliveryFailureCause)\b| LIKE '"
)
# Limits of a default ActiveMQ: messages of a page, KiB of a header line, bytes of a transaction.
NUMBERS = frozenset({10_240, 8_388_608})
# Examples for people, and defaults that every adapter understands.
EXAMPLES = {
    "settings/broker.py": {"/queue/"},
    "settings/tree.py": {"/queue/"},
    "cli/replay_dlq/command.py": {"JMSX"},
    "deadletters/archive/records.py": {"/queue/"},
}


def modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if not str(path.relative_to(PACKAGE)).startswith(BELOW)]


def test_there_are_modules_to_look_at() -> None:
    assert len(modules()) > 100


def test_nothing_above_the_brokers_names_what_is_a_brokers() -> None:
    found = []
    for path in modules():
        name = str(path.relative_to(PACKAGE))
        for number, line in enumerate(path.read_text().split("\n"), 1):
            foreign = set(FOREIGN.findall(line)) - EXAMPLES.get(name, set()) - _of_http(name)
            if foreign:
                found.append(f"{name}:{number}: {', '.join(sorted(foreign))}")
    assert not found, "\n".join(found)


def _of_http(name: str) -> set[str]:
    """Return the names that a module may use because HTTP has them, too."""
    speaks_http = ("load/plot/", "load/http", "alerts/sinks/http.py", "net/http_", "gateway/", "cli/submit/")
    return {"content-type", "content-length"} if name.startswith(speaks_http) else set()


def test_nothing_above_the_brokers_knows_a_brokers_limits() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}: {node.value}"
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and type(node.value) is int and node.value in NUMBERS
    ]
    assert not found, found


def test_nothing_above_the_brokers_imports_an_adapter() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}: {module}"
        for path in modules()
        for module in re.findall(r"infertool\.brokers\.(\w+)", path.read_text())
        if (PACKAGE / "brokers" / module).is_dir()
    ]
    assert not found, found
