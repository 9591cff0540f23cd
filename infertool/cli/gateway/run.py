"""The job of `gateway`: run it until a signal."""

from __future__ import annotations

import resource
from typing import Final

from infertool.app import process
from infertool.app.gateway import Address, GatewayApp
from infertool.cli.common import console
from infertool.cli.common.interpreter import collect_less_often, take_turns_sooner
from infertool.cli.common.signals import stopped_by_signals
from infertool.settings import Settings
from infertool.telemetry import logs
from infertool.telemetry.summing import summed_up

STOPPING = "stopping: answering those who wait (Ctrl-C again leaves at once; nothing that was accepted is lost)"

# Files that are no connections of clients: the store, the broker, libraries.
_OTHER_FILES: Final = 200


def run(settings: Settings, *, as_json: bool, quiet: bool) -> None:
    """Serve until a signal."""
    logs.set_up(settings.telemetry.log_level, settings.telemetry.log_format)
    # A line of a library must not be taken for the ready line.
    if stdout := process.keep_stdout():
        console.write_data_to(stdout)
    app = GatewayApp(settings)
    take_turns_sooner()
    _allow_connections(settings.gateway.max_connections)

    def announce(address: Address) -> None:
        collect_less_often()
        if as_json:
            fields = {"url": address.url, "port": address.port, "name": address.name, "models": address.models}
            console.emit_json({"event": "ready", **fields})
            return
        console.out(f"gateway  {address.url}")
        if not quiet:
            models = ", ".join(f"{name} (queue {queue})" for name, queue in address.models.items())
            console.err(f"models: {models}; the API is shown at {address.url}/")

    # A name server that hangs may keep the threads that ask it for the hosts of webhooks.
    with process.ended_in_time(), summed_up("infertool.gateway"), stopped_by_signals(app.stop, STOPPING):
        app.run(announce)


def _allow_connections(count: int) -> None:
    """Raise this process's limit of open files to what its connections need; say so where it must not be raised."""
    wanted = count + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        text = "%d open files are allowed, but gateway.max_connections is %d; raise the limit (ulimit -n)"
        logs.log.warning(text, allowed, count)
