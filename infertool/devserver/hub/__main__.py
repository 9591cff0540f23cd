"""`python -m infertool.devserver.hub`: the hub in a process of its own.

Prints `{"port": N}` when ready. SIGTERM or SIGINT ends it. The token, if any, is in PHOENIX_SERVICE_TOKEN.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys

import orjson

from infertool.devserver.hub import bus
from infertool.devserver.hub.hub import Hub
from infertool.devserver.hub.server import Server
from infertool.devserver.lifeline import end_with_parent
from infertool.secret import Secret

_EXIT_SERVER = 3
# A payload nested as deeply as orjson reads (1024) is written by the json module, which recurses (packets.py).
_RECURSION_LIMIT = 5_000


def main() -> int:
    """Serve until a signal comes. Return 0, or 3 when the address cannot be had."""
    options = _parser().parse_args()
    sys.setrecursionlimit(_RECURSION_LIMIT)
    if options.die_with_parent:
        end_with_parent()
    try:
        asyncio.run(_serve(options.host, options.port))
    except OSError as error:
        address = f"{options.host}:{options.port}"
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        print(f"hub: cannot listen on {address}: {reason}; choose another port", file=sys.stderr)  # noqa: T201 - a process's own stderr
        return _EXIT_SERVER
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="infertool.devserver.hub", description="Phoenix-compatible channels, for development."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4000, help="0 takes any")
    parser.add_argument("--die-with-parent", action="store_true", help="end when standard input ends")
    return parser


async def _serve(host: str, port: int) -> None:
    stopped = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sig, stopped.set)
    token = Secret(os.environ.get("PHOENIX_SERVICE_TOKEN", ""))
    server = Server(Hub(bus.definitions(), token), host)
    ready = {"port": await server.start(port)}
    print(orjson.dumps(ready).decode(), flush=True)  # noqa: T201 - the ready line is this program's output
    await stopped.wait()
    await server.stop()


if __name__ == "__main__":
    sys.exit(main())
