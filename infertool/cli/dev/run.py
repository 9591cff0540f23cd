"""One run of `infertool dev`: runs the embedded servers until a signal."""

from __future__ import annotations

import queue
from contextlib import ExitStack

from infertool.cli.common import console
from infertool.cli.common.gateway import CURL, GatewayProcess, is_possible
from infertool.cli.common.signals import stopped_by_signals
from infertool.embedded import processes
from infertool.embedded.endpoint import EmbeddedEndpoint
from infertool.errors import ServerError, UsageError
from infertool.net.address import in_url

POLL_S = 0.2


def serve(
    *,
    host: str,
    stomp_port: int | None,
    http_port: int | None,
    metrics: str | None,
    as_json: bool,
    quiet: bool,
    traces: bool = False,
    has_gateway: bool = True,
    gateway_port: int | None = None,
) -> None:
    """Start the servers whose port is not None, print their addresses, and wait. Raises `ServerError` if one dies.

    With `traces` the channel server exports the spans of events that dashboards show. A gateway needs the broker.
    """
    if stomp_port is None and http_port is None:
        raise UsageError("--no-broker and --no-hub together leave nothing to run", advice="give one of them")
    stopping: queue.SimpleQueue[None] = queue.SimpleQueue()  # its put is safe in a signal handler
    with ExitStack() as stack:
        stack.enter_context(stopped_by_signals(lambda: stopping.put(None), "stopping"))
        running: list[processes.ServerProcess] = []
        for module, port in ((processes.BROKER, stomp_port), (processes.CHANNEL_SERVER, http_port)):
            if port is not None:
                options = ["--traces"] if traces and module == processes.CHANNEL_SERVER else []
                options += [] if metrics is None else ["--figures"]
                running.append(processes.start(module, host=host, port=port, options=options))
                stack.callback(running[-1].stop)
        addresses = _addresses(host, running)
        if metrics is not None:
            endpoint = EmbeddedEndpoint(metrics, running)
            stack.callback(endpoint.close)
            addresses["metrics"] = f"{endpoint.url}/metrics"
        gateway = None
        if has_gateway and "stomp" in addresses and is_possible(quiet=quiet):
            gateway = GatewayProcess(addresses["stomp"], host=host, port=gateway_port)
            stack.callback(gateway.stop)
            addresses["gateway"] = gateway.wait_ready()
        _announce(addresses, as_json=as_json, quiet=quiet)
        while not _is_stopping(stopping):
            _check(running)
            if gateway:
                gateway.check()


def _is_stopping(stopping: queue.SimpleQueue[None]) -> bool:
    try:
        stopping.get(timeout=POLL_S)
    except queue.Empty:
        return False
    return True


def _addresses(host: str, running: list[processes.ServerProcess]) -> dict[str, str]:
    shown = in_url(host)
    addresses = {}
    for server in running:
        if server.name == "broker":
            addresses["stomp"] = f"stomp://{shown}:{server.port}"
        else:
            addresses["phoenix"] = f"ws://{shown}:{server.port}/socket/websocket"
            addresses["dashboard"] = f"http://{shown}:{server.port}/"
    return addresses


def _announce(addresses: dict[str, str], *, as_json: bool, quiet: bool) -> None:
    if as_json:
        console.emit_json(addresses)
    else:
        for name, address in addresses.items():
            console.out(f"{name:>9}  {address}")
    if not quiet and "gateway" in addresses:
        console.err(f"With infertool consume --reply: curl {addresses['gateway']}/predict {CURL}")
    if not quiet:
        console.err("For development: in memory, gone when this ends. Ctrl-C stops it.")


def _check(running: list[processes.ServerProcess]) -> None:
    for server in running:
        if server.process.has_ended():
            code = server.process.exit_code()
            raise ServerError(
                f"the embedded {server.name} ended by itself (exit code {code})", address=f":{server.port}"
            )
