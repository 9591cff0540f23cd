"""What a consumer says when it starts, and what it refuses to start with."""

from __future__ import annotations

import ipaddress
from typing import Any

from infertool import __version__
from infertool.brokers import url
from infertool.errors import UsageError
from infertool.pipeline.workload import concurrency, window
from infertool.secret import mask_url
from infertool.settings import Settings
from infertool.settings.load import Loaded
from infertool.telemetry import logs

SIMULATOR = "sim:"


def check_model(loaded: Loaded) -> None:
    """Raise `UsageError` where events of a real bus would be taken, and acknowledged, by the simulator unasked."""
    if loaded.origins["model.spec"] != "default":
        return
    broker = loaded.settings.broker.url
    if all(_is_loopback(host) for host, _ in url.parse(broker).hosts):
        return
    raise UsageError(
        f"no model is set, and {mask_url(broker)} is not on this machine: the simulator would acknowledge its events",
        advice="set --model, for example --model app.model:predict; --model sim: asks for the simulator",
    )


def log_start(settings: Settings, max_messages: int | None) -> None:
    """Log what runs, from where, and to where, in one line."""
    fields = _fields(settings, max_messages)
    replicas = f"{fields['processes']} processes of " if fields["processes"] > 1 else ""
    text = (
        f"infertool {fields['version']}: model {fields['model']}; events from {fields['queue']} at {fields['broker']},"
        f" dead letters to {fields['dead_letters']}, results to {fields['results']};"
        f" {replicas}{fields['executor']} x {fields['concurrency']}, window {fields['window']}"
    )
    logs.log.info("%s", text, extra={"fields": {"event": "start", **fields}})


def _fields(settings: Settings, max_messages: int | None) -> dict[str, Any]:
    consume = settings.consume
    batch = settings.publish.batch if settings.publish.mode == "phoenix" else 1
    return {
        "version": __version__,
        "model": _model(settings.model.spec),
        "queue": settings.broker.queue,
        "broker": mask_url(settings.broker.url),
        "dead_letters": settings.deadletter.queue,
        "results": _results(settings),
        "processes": consume.processes,
        "executor": consume.executor,
        "concurrency": consume.concurrency if consume.concurrency == "auto" else concurrency(consume),
        "window": window(consume, batch, max_messages),
    }


def _model(spec: str) -> str:
    if spec.startswith(SIMULATOR):
        return f"{spec} (the simulator: no model of yours)"
    return mask_url(spec) if "://" in spec else spec


def _results(settings: Settings) -> str:
    if settings.publish.mode == "phoenix":
        return f"{settings.phoenix.topic} at {mask_url(settings.phoenix.url)}"
    return {"stdout": "stdout", "none": "nowhere (--publish none)"}[settings.publish.mode]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"
