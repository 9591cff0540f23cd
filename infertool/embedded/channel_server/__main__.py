"""`python -m infertool.embedded.channel_server`: the channel server as a process.

Prints `{"port": N}` when ready. SIGTERM or SIGINT stops it. The token, if any, comes from PHOENIX_SERVICE_TOKEN.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

import orjson

from infertool.embedded.channel_server.channels import Hub
from infertool.embedded.channel_server.server import Server, definitions
from infertool.embedded.figures import write_figures
from infertool.secret import Secret
from infertool.workers.process import tie_to_parent

if TYPE_CHECKING:
    from infertool.telemetry.otlp import SpanExporter

# Prefix of its error lines.
_NAME = "hub"
_STDIN = 0
_EXIT_SERVER = 3
_LARGEST_PORT = 65535
# Longest wait at the end for the export of spans. Seconds.
_SPANS_S = 5.0
# A payload nested as deeply as orjson reads (1024) is written by the json module, which recurses (wire.py).
_RECURSION_LIMIT = 5_000


def main() -> int:
    """Serve until SIGTERM or SIGINT. Return 0, or 3 if it cannot listen on the address."""
    options = _parser().parse_args()
    sys.setrecursionlimit(_RECURSION_LIMIT)
    if options.die_with_parent:
        tie_to_parent(_STDIN)
    exporter = _exporter() if options.traces else None
    try:
        return asyncio.run(_serve(options.host, options.port, exporter, figures=options.figures))
    finally:
        if exporter:
            exporter.close(_SPANS_S)


def _exporter() -> SpanExporter:
    from infertool.telemetry.otlp import SpanExporter  # noqa: PLC0415  (it imports OpenTelemetry: 0.3 s)

    return SpanExporter("infertool-dashboard", warn=_warn, on_dropped=lambda _count: None)


def _warn(text: str) -> None:
    sys.stderr.write(f"{_NAME}: {text}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="infertool.embedded.channel_server", description="Phoenix-compatible channels, for development."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=_port, default=4000, help="0 for any free one")
    parser.add_argument("--traces", action="store_true", help="export the spans of events that dashboards show")
    parser.add_argument("--figures", action="store_true", help="print figures once a second")
    parser.add_argument("--die-with-parent", action="store_true", help="stop when standard input ends")
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= _LARGEST_PORT:
        raise ValueError
    return port


async def _serve(host: str, port: int, exporter: SpanExporter | None, *, figures: bool) -> int:
    stopped = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sig, stopped.set)
    token = Secret(os.environ.get("PHOENIX_SERVICE_TOKEN", ""))
    listener = Server(Hub(definitions(exporter.export if exporter else None), token), host)
    try:
        ready = {"port": await listener.start(port)}
    except OSError as error:
        sys.stderr.write(f"{_NAME}: cannot listen on {host}:{port}: {_reason(error)}; choose another address or port\n")
        return _EXIT_SERVER
    sys.stdout.write(orjson.dumps(ready).decode() + "\n")
    sys.stdout.flush()
    written = asyncio.ensure_future(write_figures(listener.figures)) if figures else None
    await stopped.wait()
    if written:
        written.cancel()
    await listener.stop()
    return 0


def _reason(error: OSError) -> str:
    """Return the system's error text. asyncio wraps it; an unresolved host name has a negative errno."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)


if __name__ == "__main__":
    sys.exit(main())
