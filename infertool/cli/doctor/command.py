"""`infertool doctor`: options and help."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """Examples:

\b
  infertool doctor                                     all checks, for the settings that apply here
  infertool doctor --only broker --broker stomp://a:61613,b:61613
  infertool doctor --skip phoenix,model --strict       a warning is a failure, too
  infertool doctor --wait 60s -o json | jq .status     wait until all is there, such as in a container's start
  infertool doctor --push --sample @event.json         also push a result, and have the model answer this event
  infertool doctor --bundle report.zip                 what a bug report needs, without secrets
"""


class Output(StrEnum):
    """Output format of the results."""

    table = "table"
    json = "json"
    nagios = "nagios"
    prometheus = "prometheus"


def doctor(
    ctx: typer.Context,
    only: Annotated[
        list[str] | None, typer.Option(help="Only these checks or categories, and what they need.", metavar="NAMES")
    ] = None,
    skip: Annotated[list[str] | None, typer.Option(help="Not these checks or categories.", metavar="NAMES")] = None,
    wait: Annotated[str, typer.Option(help="Repeat until nothing fails, for this time.", metavar="DURATION")] = "0s",
    strict: Annotated[bool, typer.Option("--strict", help="A warning counts as a failure.")] = False,
    push: Annotated[bool, typer.Option("--push", help="Push a result and an alert; viewers see them.")] = False,
    sample: Annotated[
        str | None, typer.Option(help="Event for the model, as JSON; default: a built-in one.", metavar="JSON | @FILE")
    ] = None,
    stats_url: Annotated[
        str | None, typer.Option(help="Metrics address of a consumer that runs, http://HOST:PORT.", metavar="URL")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Write what a bug report needs; secrets are masked.", metavar="FILE.zip")
    ] = None,
    broker: Annotated[str | None, typer.Option(help="Broker, e.g. stomp://a:61613,b:61613.", metavar="URL")] = None,
    queue: Annotated[str | None, typer.Option(help="Queue of events.", metavar="NAME")] = None,
    dlq: Annotated[str | None, typer.Option(help="Dead-letter queue.", metavar="NAME")] = None,
    phoenix: Annotated[str | None, typer.Option(help="Phoenix server.", metavar="URL")] = None,
    model: Annotated[str | None, typer.Option(help="Model.", metavar="SPEC")] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="Form of the output.")] = Output.table,
) -> None:
    """Check settings, broker, Phoenix, model and machine: what was measured, what is wrong, and what to do then.

    Takes no message from your queues, and leaves nothing behind. Exit codes: 0 nothing failed, 1 a check failed (with
    --strict also a warning), 2 usage, 130 interrupted. With -o nagios: 0, 1 warning, 2 critical.
    """
    from infertool.app.doctor.check import selection
    from infertool.app.doctor.examination import Asked
    from infertool.cli.common.typed_options import check_used
    from infertool.cli.doctor.run import Request, read_sample, refuse_existing, run
    from infertool.errors import SettingsError
    from infertool.text.input import parse_duration, parse_stats_url

    selected = selection(only or (), skip or ())
    checks = {"push": "phoenix.confirm", "sample": "model.sample", "stats_url": "telemetry.consumer"}
    check_used(
        ctx,
        *(
            (option, selected.asks_for(name), f"it is for {name}: have --only and --skip ask for that check")
            for option, name in checks.items()
        ),
    )
    request = Request(
        selection=selected,
        asked=Asked(
            sample=None if sample is None else read_sample(sample),
            push=push,
            stats_url=parse_stats_url(stats_url) if stats_url else None,
        ),
        wait_s=parse_duration(wait, "--wait"),
        strict=strict,
        output=output.value,
        bundle=bundle,
        quiet=ctx.obj.quiet,
    )
    if bundle:
        refuse_existing(bundle)
    flags = {
        "broker.url": ("--broker", broker),
        "broker.queue": ("--queue", queue),
        "deadletter.queue": ("--dlq", dlq),
        "phoenix.url": ("--phoenix", phoenix),
        "model.spec": ("--model", model),
    }
    try:
        loaded = ctx.obj.load(flags)
    except SettingsError as error:
        run(error, request)
    else:
        run(loaded, request)
