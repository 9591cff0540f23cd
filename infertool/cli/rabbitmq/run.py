"""One run of `infertool rabbitmq declare`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from infertool import brokers
from infertool.brokers.declaring import DeclaresQueues, QueueSpec, QueueState, Standing
from infertool.cli.common import console
from infertool.cli.rabbitmq import view
from infertool.errors import InfertoolError, UsageError
from infertool.settings import Settings

_TIMEOUT_S = 30.0
_GOODBYE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for. `default_type` is that of a queue that is made and whose spec names none."""

    specs: tuple[QueueSpec, ...]
    default_type: str
    yes: bool
    as_json: bool


def run(settings: Settings, request: Request) -> None:
    """Show the queues, ask, and make what is missing. Raises `InfertoolError` if one is not as asked for."""
    broker = brokers.open(settings.broker, name="infertool-declare")
    if not isinstance(broker, DeclaresQueues):
        raise UsageError(
            f"queues of {settings.broker.url.partition('://')[0]}:// are not declared",
            advice="name a broker of amqp:// with --broker, or in broker.url",
        )
    broker.connect()
    try:
        states = broker.declare(request.specs, timeout_s=_TIMEOUT_S, create=False)
        states = _with_missing_ones(broker, states, request)
    finally:
        broker.close(_GOODBYE_S)
    differing = [state for state in states if state.standing is Standing.DIFFERS]
    if differing:
        raise InfertoolError(
            f"{len(differing)} of {len(states)} queues are not as asked for; what exists is never changed",
            advice="ask for what they have, set the rest by a policy, or delete them and declare them anew",
        )


def _with_missing_ones(broker: DeclaresQueues, states: list[QueueState], request: Request) -> list[QueueState]:
    """Return the states after the missing queues were made; the others are as they were."""
    missing = [_typed(state.spec, request.default_type) for state in states if state.standing is Standing.MISSING]
    planned = [replace(state, spec=_typed(state.spec, request.default_type)) for state in states]
    if not request.as_json:
        console.out(*view.table(planned))
    if missing and not (request.yes or _agrees(planned, len(missing), request)):
        raise InfertoolError("nothing was done: not agreed")
    made = {
        state.spec.name: state
        for state in (broker.declare(missing, timeout_s=_TIMEOUT_S, create=True) if missing else ())
    }
    after = [made.get(state.spec.name, state) for state in states]
    created = sum(state.created for state in after)
    with console.reporting(f"{created} queues were made" if created else ""):
        if request.as_json:
            console.emit_json(view.document(after))
        elif created:
            console.err(f"made: {', '.join(state.spec.name for state in after if state.created)}")
    return after


def _typed(spec: QueueSpec, default_type: str) -> QueueSpec:
    return spec if spec.type else replace(spec, type=default_type)


def _agrees(planned: list[QueueState], count: int, request: Request) -> bool:
    if request.as_json:
        console.err(*view.table(planned))
    try:
        answer = console.ask(f"make {count} queue{'s' * (count > 1)}? [y/N] ", otherwise="--yes")
    except UsageError:
        if request.as_json:
            console.emit_json(view.document(planned))
        raise
    return answer.lower() in {"y", "yes"}
