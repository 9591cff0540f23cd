"""The job of `serve-model`: load the model, serve it until a signal."""

from __future__ import annotations

from infertool.app import process
from infertool.app.model_server import ModelServer, for_serving
from infertool.cli.common import console
from infertool.cli.common.interpreter import take_turns_sooner
from infertool.cli.common.signals import stopped_by_signals
from infertool.errors import UsageError
from infertool.settings.load import Loaded
from infertool.telemetry import logs
from infertool.telemetry.summing import summed_up

STOPPING = "stopping: finishing what was begun (Ctrl-C again leaves at once)"


def run(loaded: Loaded, *, as_json: bool, quiet: bool) -> None:
    """Serve until a signal."""
    if loaded.origins["model.spec"] == "default":
        raise UsageError("there is no model to serve", advice="name one, such as app.model:predict, or sim: to try it")
    settings = for_serving(loaded)
    logs.set_up(settings.telemetry.log_level, settings.telemetry.log_format)
    if stdout := process.keep_stdout():
        console.write_data_to(stdout)
    with (
        process.ended_in_time(),
        summed_up("infertool.gateway"),
        ModelServer(settings) as server,
        stopped_by_signals(server.stop, STOPPING),
    ):
        process.load(server.app)
        take_turns_sooner()

        def announce() -> None:
            infer = f"/v2/models/{server.name}/infer"
            if as_json:
                console.emit_json({"event": "ready", "url": server.url, "port": server.port, "model": server.name})
                return
            console.out(f"model {server.name}  {server.url}/predict")
            if not quiet:
                console.err(f"v2: {server.url}{infer}; metrics: {server.url}/metrics")

        server.run(announce)
