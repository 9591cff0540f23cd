"""`infertool submit`: submit the lines of a file to a gateway."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLE = """Examples:

\b
  infertool submit events.jsonl --class batch --follow > results.jsonl
  infertool submit events.jsonl --url https://gateway.example.com --key-file key --model fraud
  zcat events.jsonl.gz | infertool submit - --job monday --follow | jq .prediction
"""


def submit(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(help="JSON lines, a request each; - is standard input.", metavar="FILE")],
    url: Annotated[str, typer.Option(help="Address of the gateway.", metavar="URL")] = "http://127.0.0.1:8080",
    class_: Annotated[
        str | None, typer.Option("--class", help="Class of the requests, such as batch.", metavar="CLASS")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model to ask.", metavar="NAME")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for the results, not only for acceptance.")] = False,
    key_file: Annotated[
        str | None, typer.Option(help="File of the API key. Default: gateway.client_key.", metavar="FILE")
    ] = None,
    job: Annotated[
        str | None, typer.Option(help="Name of this job. Default: the file's full path.", metavar="NAME")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=1000, help="Requests at a time.", metavar="N")] = 32,
    timeout: Annotated[
        str | None, typer.Option(help="Time after which a request expires. Default: the gateway's.", metavar="DURATION")
    ] = None,
    patience: Annotated[
        str, typer.Option(help="Give up after this time without any response.", metavar="DURATION")
    ] = "5m",
) -> None:
    """Submit each line of FILE as a request, and write what became of it as a line of JSON, in the order of the ends.

    It waits as long as Retry-After tells. Run again after Ctrl-C, a crash or an outage, it repeats nothing: each line
    has an idempotency key. Exit code 1: a line has no result; 3: the gateway is away, or refuses all requests.
    """
    from infertool.cli.submit.lines import job_name
    from infertool.cli.submit.run import Job, Submit
    from infertool.cli.submit.target import request_headers, target
    from infertool.errors import UsageError
    from infertool.text.input import parse_duration

    loaded = ctx.obj.load({"gateway.client_key_file": ("--key-file", key_file)})
    expires_s = None if timeout is None else parse_duration(timeout, "--timeout")
    if expires_s == 0:
        raise UsageError("--timeout must be above 0")
    Submit(
        Job(
            source=file,
            name=job or job_name(file),
            target=target(url),
            headers=request_headers(loaded.settings.gateway.client_key, class_, model, expires_s),
            follow=follow,
            concurrency=concurrency,
            patience_s=parse_duration(patience, "--patience"),
            quiet=ctx.obj.quiet,
        )
    ).run()
