"""Which traces are recorded: what the environment says, decided as OpenTelemetry's SDK decides it."""

from __future__ import annotations

import logging
import random
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace.sampling import Decision, _get_from_env_or_default
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from infertool.app.consumer import check
from infertool.consumer.consumer import Until
from infertool.errors import SettingsError
from infertool.settings import Settings
from infertool.settings.tree import TelemetrySettings
from infertool.telemetry.otlp import SpanExporter
from infertool.telemetry.sampling import Sampler, of_environment
from infertool.telemetry.trace_context import TraceContext, new_span_id, new_trace_id

NAMES = ["always_on", "always_off", "traceidratio"]


@pytest.mark.parametrize("share", ["", "0", "0.01", "0.5", "1"])
@pytest.mark.parametrize("name", ["", *NAMES, *(f"parentbased_{name}" for name in NAMES)])
def test_the_sdk_would_decide_the_same(monkeypatch: pytest.MonkeyPatch, name: str, share: str) -> None:
    monkeypatch.delenv("OTEL_TRACES_SAMPLER", raising=False)
    given = {"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": share} if name else {}
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    warnings: list[str] = []
    ours, theirs = of_environment(given, warnings.append), _get_from_env_or_default()
    rng = random.Random(7)
    for _ in range(300):
        trace_id = f"{rng.getrandbits(128):032x}"
        parents = [None, *(TraceContext(trace_id, new_span_id(), flags) for flags in (0, 1, 2, 3))]
        for parent in parents:
            context = None
            if parent:
                span = SpanContext(int(trace_id, 16), int(parent.span_id, 16), True, TraceFlags(parent.flags))
                context = set_span_in_context(NonRecordingSpan(span))
            decision = theirs.should_sample(context, int(trace_id, 16), "process").decision
            assert ours.records(parent, trace_id) is (decision is Decision.RECORD_AND_SAMPLE)
    assert warnings == []


@pytest.mark.parametrize("argument", ["x", "-1", "1.1", "nan", "inf"])
def test_what_is_no_sampler_or_share_is_warned_about(argument: str) -> None:
    warnings: list[str] = []
    given = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": argument}
    assert of_environment(given, warnings.append) == Sampler(1.0, parent_based=False)
    assert of_environment({"OTEL_TRACES_SAMPLER": argument}, warnings.append) == Sampler()
    assert len(warnings) == 2
    assert all(argument in warning for warning in warnings)


def test_a_consumer_without_traces_imports_nothing_of_opentelemetry() -> None:
    program = "import infertool.app.consumer, sys; print([name for name in sys.modules if 'opentelemetry' in name])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_missing_extra_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(telemetry=TelemetrySettings(traces="otlp"))
    check(settings, Until())
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)  # as if it were not there
    with pytest.raises(SettingsError, match=r"needs the package opentelemetry\.sdk") as caught:
        check(settings, Until())
    assert "pip install 'infertool[otel]'" in str(caught.value)


@pytest.mark.parametrize("given", [{"OTEL_BSP_MAX_QUEUE_SIZE": "10"}, {"OTEL_BSP_SCHEDULE_DELAY": "-1"}])
def test_variables_that_make_no_sense_are_an_error_of_settings(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(SettingsError, match="OTEL_BSP_ variables"):
        SpanExporter("x", warn=print, on_dropped=print)
    logger = logging.getLogger("opentelemetry")
    assert logger.propagate
    assert not [each for each in logger.handlers if type(each).__module__.startswith("infertool")]


def test_ids_are_never_zero_and_differ() -> None:
    assert len({new_trace_id() for _ in range(1000)} | {new_span_id() for _ in range(1000)}) == 2000
