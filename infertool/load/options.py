"""The options of a load run, and their checks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from infertool.errors import UsageError
from infertool.load import arrivals
from infertool.load.arrivals import NothingPlannedError, Planned, Process, Schedule
from infertool.load.headers import Envelope, EnvelopeOptions
from infertool.load.http_options import HttpOptions
from infertool.load.payloads import PayloadOptions, Payloads
from infertool.load.tally import Measure
from infertool.message import BodyKind

_MOST_UNCONFIRMED = 500
_IN_FLIGHT, _HTTP_IN_FLIGHT = 200, 1000


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """The options of a run.

    With `closed` the model is closed and has that number of open events; `planned` then gives only limits. With `e2e`
    results are observed, and awaited until none came for `settle_s`. With `rpc_timeout_s` each event is a request,
    whose reply is awaited for that time. `in_flight` is the window of `confirm`, for each connection. With `http`
    events go to a gateway, at most `in_flight` at a time from each process, and not to a broker.
    `export_traces` exports the spans of recorded events.
    """

    planned: Planned
    envelope: EnvelopeOptions
    payloads: PayloadOptions = field(default_factory=PayloadOptions)
    closed: int | None = None
    confirm: bool = False
    given_in_flight: int | None = None
    max_late_s: float = math.inf
    e2e: bool = False
    settle_s: float = 10.0
    rpc_timeout_s: float | None = None
    export_traces: bool = False
    connections: int = 1
    processes: int = 1
    http: HttpOptions | None = None

    def check(self) -> None:
        """Raise UsageError for options that are invalid or contradict each other."""
        Payloads(self.payloads, "")
        Envelope(self.envelope, "")
        if self.rpc_timeout_s == 0:
            raise UsageError("--timeout must be above 0")
        if self.rpc:
            for option, given in (("--e2e", self.e2e), ("--confirm", self.confirm)):
                if given:
                    raise UsageError(
                        f"--rpc and {option} contradict each other", advice="a reply says more: leave the other out"
                    )
        if self.given_in_flight and not (self.confirm or self.http):
            raise UsageError(
                "--in-flight goes only with --confirm and --http", advice="else nothing tells what is under way"
            )
        if self.confirm and self.in_flight > _MOST_UNCONFIRMED:
            raise UsageError(f"--in-flight {self.in_flight}: at most {_MOST_UNCONFIRMED} events may be unconfirmed")
        if self.http:
            self._check_http(self.http)
        if self.closed is None:
            self.schedule()
        else:
            self._check_closed(self.planned)

    def _check_http(self, http: HttpOptions) -> None:
        http.check(self.envelope.headers)
        for option, given in (
            ("--rpc", self.rpc), ("--e2e", self.e2e), ("--confirm", self.confirm),
            ("--priority", self.envelope.priority is not None), ("--type bytes", self.envelope.kind is BodyKind.BYTES),
            ("--connections", self.connections > 1),
        ):  # fmt: skip
            if given:
                raise UsageError(
                    f"--http and {option} contradict each other",
                    advice="--class says what is urgent, --in-flight how many connections there may be",
                )

    def _check_closed(self, planned: Planned) -> None:
        for option, given in (
            ("--qps", planned.qps), ("--stage", planned.stages), ("--ramp", planned.ramp), ("--trace", planned.trace),
            ("--burst", planned.burst), ("--speed", planned.speed != 1.0),
            ("--arrivals poisson", planned.process is Process.POISSON),
            ("--max-late", self.max_late_s < math.inf), ("--processes", self.processes > 1),
        ):  # fmt: skip
            if given:
                raise UsageError(
                    f"--closed and {option} contradict each other", advice="a closed model has no plan to keep to"
                )
        if planned.duration_s == 0:
            raise NothingPlannedError
        if not (self.confirm or self.awaits_results):
            raise UsageError(
                "--closed needs to know when an event is done",
                advice="add --e2e (its result), --rpc (its reply), --http (its response) or --confirm (its receipt)",
            )

    @property
    def rpc(self) -> bool:
        """Whether each event is a request."""
        return self.rpc_timeout_s is not None

    @property
    def awaits_results(self) -> bool:
        """Whether the run sees what became of each event."""
        return self.e2e or self.rpc or self.http is not None

    @property
    def in_flight(self) -> int:
        """The most events that wait for their receipt or response."""
        return self.given_in_flight or (_HTTP_IN_FLIGHT if self.http else _IN_FLIGHT)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The measures that the options ask for."""
        asked = {
            Measure.SLIP: self.closed is None,
            Measure.SEND: self.confirm,
            Measure.E2E: self.e2e,
            Measure.REPLY: self.rpc,
            Measure.HTTP: self.http is not None,
        }
        return tuple(measure for measure, wanted in asked.items() if wanted)

    @property
    def plan_text(self) -> str:
        """The plan in words."""
        if self.closed is None:
            return self.schedule().text
        what = "response" if self.http else "reply" if self.rpc else "result" if self.e2e else "receipt"
        until = f"its {what} has come"
        return arrivals.described(f"{self.closed} open at a time, the next one sent when {until}", self.planned)

    @property
    def end_s(self) -> float:
        """The end of the plan, in seconds after the start; infinite if only a count or a signal ends it."""
        if self.closed is None:
            return self.schedule().end_s
        return math.inf if self.planned.duration_s is None else self.planned.warmup_s + self.planned.duration_s

    def schedule(self) -> Schedule:
        """Return the schedule of an open model. Raises UsageError."""
        return arrivals.schedule(self.planned)
