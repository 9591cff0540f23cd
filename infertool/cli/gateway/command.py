"""`infertool gateway`: run the HTTP gateway, and manage its API keys."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from infertool.cli.common.outputs import TextOrJson
from infertool.cli.gateway import keys, webhooks

EXAMPLE = """Examples:

\b
  infertool gateway                                        at http://127.0.0.1:8080, one model behind broker.queue
  infertool gateway --listen 0.0.0.0:8080 --keys-file keys.json --model fraud=ai.fraud --model text=ai.text
  infertool gateway --listen 0 -o json                     any free port; one ready line for scripts
  curl http://127.0.0.1:8080/v1/infer --json '{"features": [1, 2, 3]}'
"""


app = typer.Typer(
    help="Run the HTTP gateway: requests in, messages to the broker, results back. `gateway keys`: API keys.",
    epilog=EXAMPLE,
    invoke_without_command=True,
    rich_markup_mode=None,
)
app.add_typer(keys.app, name="keys")
app.command(epilog=webhooks.EXAMPLE)(webhooks.webhooks)


@app.callback()
def gateway(
    ctx: typer.Context,
    listen: Annotated[
        str | None, typer.Option(help="Address to listen on; port 0 for any.", metavar="[HOST:]PORT")
    ] = None,
    broker: Annotated[str | None, typer.Option(help="Broker, e.g. stomp://a:61613,b:61613.", metavar="URL")] = None,
    queue: Annotated[str | None, typer.Option(help="Queue of the one model, default.", metavar="Q")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="A model and its queue; repeatable.", metavar="NAME=QUEUE")
    ] = None,
    keys_file: Annotated[
        str | None, typer.Option(help="File of API keys, of `infertool gateway keys add`.", metavar="FILE")
    ] = None,
    anonymous: Annotated[
        bool | None, typer.Option("--anonymous/--no-anonymous", help="Let requests without credentials in.")
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(help="Answer equal requests from memory: number of results and lifetime.", metavar="N:TIME"),
    ] = None,
    state_dir: Annotated[
        str | None, typer.Option(help="Folder of accepted requests and results.", metavar="FOLDER")
    ] = None,
    output: Annotated[TextOrJson, typer.Option("--output", "-o", help="Form of the ready line.")] = TextOrJson.text,
) -> None:
    """Take requests over HTTP, queue them by class, send them to the broker, and answer with what the consumers reply.

    What is accepted is kept in a file until its end: a restart loses nothing. Ctrl-C or SIGTERM answers those who wait,
    with the result or with 202, and ends. The consumers need --reply.
    """
    if ctx.invoked_subcommand is not None:
        from infertool.cli.common.typed_options import check_place

        check_place(ctx)
        return

    from infertool.cli.common.options import parse_pairs
    from infertool.errors import UsageError

    if queue is not None and model:
        raise UsageError("--queue is that of a single model", advice="write --model default=QUEUE instead")
    flags: dict[str, tuple[str, Any]] = {
        "gateway.listen": ("--listen", listen),
        "broker.url": ("--broker", broker),
        "broker.queue": ("--queue", queue),
        "gateway.models": ("--model", parse_pairs("--model", model, "fraud=ai.fraud") if model else None),
        "gateway.keys_file": ("--keys-file", keys_file),
        "gateway.anonymous": ("--anonymous", anonymous),
        "gateway.cache": ("--cache", cache),
        "gateway.state_dir": ("--state-dir", state_dir),
    }
    settings = ctx.obj.load(flags).settings
    if queue is not None and settings.gateway.models:
        raise UsageError(
            "--queue is that of a single model, and gateway.models names them", advice="use --model NAME=QUEUE"
        )

    from infertool.app.gateway import check
    from infertool.cli.gateway.run import run

    check(settings)
    run(settings, as_json=output is TextOrJson.json, quiet=ctx.obj.quiet)
