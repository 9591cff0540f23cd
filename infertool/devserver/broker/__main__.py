"""`python -m infertool.devserver.broker`: the embedded broker in a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import threading

import orjson

from infertool.devserver.broker.login import Login
from infertool.devserver.broker.server import Server

_PORT_TAKEN = 3


def main() -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    options = _options()
    try:
        _run(options)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        sys.stderr.write(f"cannot listen on {options.host}:{options.port}: {reason}; choose another --port\n")
        return _PORT_TAKEN
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m infertool.devserver.broker", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=61613, help="0 for any free one")
    parser.add_argument("--die-with-parent", action="store_true", help="stop when standard input ends")
    return parser.parse_args()


def _run(options: argparse.Namespace) -> None:
    if sys.platform == "win32":
        asyncio.run(_serve(options))
    else:
        import uvloop  # noqa: PLC0415  # not made for Windows

        uvloop.run(_serve(options))


async def _serve(options: argparse.Namespace) -> None:
    server = Server(Login.from_environment(os.environ))
    port = await server.start(options.host, options.port)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if options.die_with_parent:
        threading.Thread(target=_wait_for_parent, args=(loop, stopped), daemon=True).start()
    sys.stdout.buffer.write(orjson.dumps({"port": port}) + b"\n")
    sys.stdout.buffer.flush()
    await stopped.wait()
    await server.stop()


def _wait_for_parent(loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
    """Wait until the pipe from the parent ends: the parent closed it, or is gone."""
    # Unbuffered: a thread that waits in a buffered read would hold its lock when the interpreter ends.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    loop.call_soon_threadsafe(stopped.set)


if __name__ == "__main__":
    raise SystemExit(main())
