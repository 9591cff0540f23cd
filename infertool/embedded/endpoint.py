"""The endpoint of the embedded servers: their figures as metrics, and their health. It runs in the parent process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from infertool import __version__
from infertool.embedded.figures import Figures, FiguresReader
from infertool.embedded.processes import ServerProcess
from infertool.net.http_server import HttpServer, Request, Response
from infertool.telemetry.endpoint import health_response, metrics_response
from infertool.telemetry.health import HANGS_S, Condition, all_ok, at_most
from infertool.telemetry.metric_families import Definition, Samples, families
from infertool.telemetry.process_metrics import COMMON_DEFINITIONS, common_samples
from infertool.telemetry.process_stats import ProcessMeter
from infertool.text.input import parse_listen_address

DEFINITIONS: Final = (
    Definition("embedded_connections", "gauge", "Connections of clients, by server: broker or hub.", ("server",)),
    Definition(
        "embedded_queue_messages",
        "gauge",
        "Messages in a queue of the broker: ready, or unacked by a consumer; of the 100 largest queues.",
        ("queue", "state"),
    ),
    Definition("embedded_queue_consumers", "gauge", "Subscriptions to the queue.", ("queue",)),
    Definition(
        "embedded_queue_changes",
        "counter",
        "Messages that came into the queue (enqueued), were acknowledged (dequeued), or expired.",
        ("queue", "change"),
    ),
    Definition("embedded_topic_sockets", "gauge", "Sockets that have joined the topic; of 100 topics.", ("topic",)),
    Definition("embedded_publishers_paused", "gauge", "1 while viewers read too slowly and publishers wait."),
    *COMMON_DEFINITIONS,
)


class EmbeddedEndpoint:
    """Serves `/metrics`, `/livez` and `/readyz` for servers that were started with `--figures`.

    Raises `ListenError` where it cannot listen, and `UsageError` for what is no address.
    """

    def __init__(self, address: str, servers: Sequence[ServerProcess], hangs_s: float = HANGS_S) -> None:
        host, port = parse_listen_address(address)
        self._servers = [(server, FiguresReader(server.process.stdout, server.name)) for server in servers]
        self._hangs_s = hangs_s
        self._started = time.time()
        self._lock = threading.Lock()
        self._process = ProcessMeter(Path(os.curdir))
        routes = {
            "/metrics": self._metrics,
            "/livez": lambda request: health_response(self._health(), request),
            "/readyz": lambda request: health_response(self._health(), request),
        }
        self._server = HttpServer(host, port, routes, name="dev-http")
        self.url = f"http://{self._server.address}"
        self._server.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.close()

    def _health(self) -> list[Condition]:
        """Return the conditions. The servers need nothing else: what is live is ready."""
        now = time.monotonic()
        return [
            at_most(server.name, now - reader.told.at, self._hangs_s, "last ran {} ago")
            for server, reader in self._servers
        ]

    def _metrics(self, request: Request) -> Response:
        with self._lock:
            process = self._process.measure()
            cpu_seconds = self._process.cpu_seconds
        well = all_ok(self._health())
        common = common_samples(
            process, version=__version__, cpu_seconds=cpu_seconds, started=self._started, live=well, ready=well
        )
        samples: dict[str, Samples] = {}
        for server, reader in self._servers:
            for name, found in _samples(server.name, reader.told.figures).items():
                samples.setdefault(name, []).extend(found)
        return metrics_response(families(DEFINITIONS, samples | common, {}), request)


def _samples(server: str, figures: Figures) -> dict[str, Samples]:
    connections: dict[str, Samples] = {"embedded_connections": [((server,), figures.connections)]}
    if server == "broker":
        return connections | {
            "embedded_queue_messages": [
                ((queue.name, state), count)
                for queue in figures.queues
                for state, count in (("ready", queue.ready), ("unacked", queue.unacked))
            ],
            "embedded_queue_consumers": [((queue.name,), queue.consumers) for queue in figures.queues],
            "embedded_queue_changes": [
                ((queue.name, change), getattr(queue, change))
                for queue in figures.queues
                for change in ("enqueued", "dequeued", "expired")
            ],
        }
    return connections | {
        "embedded_topic_sockets": [((topic,), count) for topic, count in figures.topics.items()],
        "embedded_publishers_paused": [((), figures.paused)],
    }
