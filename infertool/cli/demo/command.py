"""`infertool demo`: the whole bus at once."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

EXAMPLE = """Examples:

\b
  infertool demo                          30 seconds, 20 events a second
  infertool demo --for 2m --qps 200       a busier bus
  infertool demo --for 10s -o json        only the summary, for scripts
"""


class Output(StrEnum):
    """Output format of the summary."""

    text = "text"
    json = "json"


def demo(
    ctx: typer.Context,
    for_: Annotated[str, typer.Option("--for", help="Time for which events are sent.", metavar="DURATION")] = "30s",
    qps: Annotated[float, typer.Option(min=0.1, max=2000, help="Events a second.", metavar="N")] = 20,
    output: Annotated[Output, typer.Option("--output", "-o", help="Form of the summary.")] = Output.text,
) -> None:
    """Run a broker, a channel server, a consumer and a producer on this machine, and show results as they come.

    It needs no other software and leaves nothing behind. The simulated model takes 100-500 ms and fails on 5 % of the
    events; the demo does not retry, so that alerts and dead letters can be seen.
    """
    from infertool.cli.demo.run import Demo
    from infertool.text.input import parse_duration

    Demo(seconds=parse_duration(for_, "--for"), rate=qps, as_json=output is Output.json, quiet=ctx.obj.quiet).run()
