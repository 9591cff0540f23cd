"""`python -m infertool.embedded.broker`: the embedded broker as a process."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys

import orjson

from infertool.embedded.broker.client import Login
from infertool.embedded.broker.server import Server
from infertool.embedded.figures import write_figures
from infertool.workers.process import tie_to_parent

_STDIN = 0
_PORT_TAKEN = 3


def main() -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    options = _options()
    if options.die_with_parent:
        tie_to_parent(_STDIN)
    try:
        asyncio.run(_serve(options))
    except OSError as error:
        # asyncio wraps the system's text; a host name that is not found has a negative number.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or error
        sys.stderr.write(f"cannot listen on {options.host}:{options.port}: {reason}; choose another --port\n")
        return _PORT_TAKEN
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m infertool.embedded.broker", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=61613, help="0 for any free one")
    parser.add_argument("--figures", action="store_true", help="print figures once a second")
    parser.add_argument("--die-with-parent", action="store_true", help="stop when standard input ends")
    return parser.parse_args()


async def _serve(options: argparse.Namespace) -> None:
    server = Server(Login.from_environment(os.environ))
    port = await server.start(options.host, options.port)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    sys.stdout.buffer.write(orjson.dumps({"port": port}) + b"\n")
    sys.stdout.buffer.flush()
    figures = asyncio.ensure_future(write_figures(server.figures)) if options.figures else None
    await stopped.wait()
    if figures:
        figures.cancel()
    await server.stop()


if __name__ == "__main__":
    raise SystemExit(main())
