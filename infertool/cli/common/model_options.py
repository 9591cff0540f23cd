"""Options of the commands that run a model: `consume` and `serve-model`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from infertool.cli.common.typed_options import check_used

if TYPE_CHECKING:
    from infertool.settings import ConsumeSettings


class Executor(StrEnum):
    """Where the model runs."""

    threads = "threads"
    processes = "processes"


Cache = Annotated[
    str | None, typer.Option(help="Keep N results for equal events, e.g. 10000:5m.", metavar="N:DURATION")
]
Concurrency = Annotated[
    str | None, typer.Option(help="Calls at the same time, on threads; auto adapts it.", metavar="N|auto")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Worker processes; one a core by default.", metavar="N")]
Devices = Annotated[
    str | None, typer.Option(help="GPUs of the worker processes, each sees one, e.g. 0,1.", metavar="GPU,...")
]
BatchSize = Annotated[
    str | None, typer.Option(help="Most events in one call of predict_batch; auto measures it.", metavar="N|auto")
]
BatchWait = Annotated[str | None, typer.Option(help="Longest wait for a batch to fill, e.g. 10ms.", metavar="DURATION")]
TargetLatency = Annotated[str | None, typer.Option(help="Goal of batch size auto, e.g. 50ms.", metavar="DURATION")]


def number_or_auto(text: str | None) -> int | str | None:
    """Return the value of an option that takes a number or `auto`; the settings check it."""
    return int(text) if text is not None and text.isdecimal() else text


def refuse_unused(ctx: typer.Context, consume: ConsumeSettings) -> None:
    """Raise `UsageError` for an option of the model on the command line that does nothing in this run."""
    is_fixed = consume.batch_size not in {1, "auto"}
    check_used(ctx, ("batch_wait", is_fixed, "it is for batches of a fixed size: add --batch-size N"))


ExecutorOption = Annotated[
    Executor | None, typer.Option(help="Threads for models that wait, processes for those that compute.")
]
