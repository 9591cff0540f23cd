"""The check of settings that export traces, for every command that makes spans."""

from __future__ import annotations

from infertool.errors import SettingsError
from infertool.settings import Settings
from infertool.telemetry.spans import missing_package


def check_traces(settings: Settings) -> None:
    """Raise `SettingsError` where traces are to be exported, and what that needs is not installed."""
    if settings.telemetry.traces == "otlp" and (package := missing_package()):
        raise SettingsError(
            f"telemetry.traces otlp needs the package {package}, which is not installed",
            key="telemetry.traces",
            advice="pip install 'infertool[otel]'",
        )
