"""Checks of this machine's environment: Python, packages, the limit of open files."""

from __future__ import annotations

import platform
import resource
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from infertool import __version__
from infertool.app.doctor.check import Check
from infertool.app.doctor.result import Finding, fail, ok, warn
from infertool.settings import Settings

# A consumer has about 50 open, each process of --processes and --workers some more.
_FEW_FILES, _TOO_FEW_FILES = 1024, 128
PACKAGES: Final = (
    "typer", "rich", "stomp.py", "websocket-client", "orjson", "msgspec", "urllib3", "websockets", "textual",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Extra:
    """An extra of infertool, and the package by which it is known."""

    name: str
    package: str


EXTRAS: Final = (
    Extra("rabbitmq", "pika"),
    Extra("kafka", "confluent-kafka"),
    Extra("onnx", "onnxruntime"),
    Extra("otel", "opentelemetry-exporter-otlp-proto-http"),
    Extra("plots", "resvg-py"),
)


def checks() -> list[Check]:
    """Return what needs no settings."""
    return [Check(name="environment.python", run=_python), Check(name="environment.files", run=_files)]


def packages_check(settings: Settings, load: Check) -> Check:
    """Return the check of the packages that the settings need."""
    return Check(name="environment.packages", run=lambda: _packages(settings), needs=(load,))


def versions() -> dict[str, str | None]:
    """Return the version of each package that infertool uses; None for one that is not installed."""
    return {name: _version(name) for name in (*PACKAGES, *(extra.package for extra in EXTRAS))}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _python() -> Finding:
    return ok(f"infertool {__version__}, Python {platform.python_version()}, {platform.system()} {platform.release()}")


def _packages(settings: Settings) -> Finding:
    found = versions()
    needed = [extra for extra in EXTRAS if _is_needed(extra, settings)]
    missing = [extra for extra in needed if found[extra.package] is None]
    if missing:
        names = ", ".join(extra.package for extra in missing)
        extras = ",".join(extra.name for extra in missing)
        return fail(f"the settings need {names}, not installed", f"pip install 'infertool[{extras}]'")
    all_extras = [f"{extra.name} {found[extra.package] or 'not installed'}" for extra in EXTRAS]
    return ok(f"all that the settings need; extras: {', '.join(all_extras)}")


def _is_needed(extra: Extra, settings: Settings) -> bool:
    match extra.name:
        case "rabbitmq":
            return settings.broker.url.startswith(("amqp:", "amqps:"))
        case "kafka":
            return settings.broker.url.startswith("kafka")
        case "onnx":
            return settings.model.spec.startswith("onnx:")
        case "otel":
            return settings.telemetry.traces == "otlp"
        case _:
            return False


def _files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return ok("no limit")
    value = f"{soft} at most (hard limit {'none' if hard == resource.RLIM_INFINITY else hard})"
    hint = "raise it: ulimit -n 4096, or LimitNOFILE= in the systemd unit"
    if soft < _TOO_FEW_FILES:
        return fail(value, hint, soft, "files")
    return warn(value, hint, soft, "files") if soft < _FEW_FILES else ok(value, soft, "files")
