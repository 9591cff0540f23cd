"""`infertool rabbitmq`: declare queues."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from infertool.cli.common.outputs import TableOrJson

app = typer.Typer(
    help="RabbitMQ: declare queues.",
    epilog="Example: infertool rabbitmq declare --queue orders --dlq orders.dlq",
    no_args_is_help=True,
    rich_markup_mode=None,
)

EXAMPLE = """Examples:

\b
  infertool rabbitmq declare                                     the configured queues: what is there, what is missing
  infertool rabbitmq declare --yes                               make what is missing, without asking
  infertool rabbitmq declare --queue orders --type quorum --delivery-limit 5
  infertool rabbitmq declare --queue orders --dead-letter-exchange amq.default --dead-letter-routing-key orders.dlq
  infertool rabbitmq declare -o json | jq .queues                for a program
"""
# What RabbitMQ's own tools call the exchange without a name.
_DEFAULT_EXCHANGE = "amq.default"


class QueueType(StrEnum):
    """Types of queues that can be consumed."""

    classic = "classic"
    quorum = "quorum"


@app.callback()
def rabbitmq() -> None:
    """RabbitMQ: declare queues."""


@app.command(epilog=EXAMPLE)
def declare(
    ctx: typer.Context,
    queue: Annotated[
        list[str] | None,
        typer.Option(help="Queue of events; may be repeated. Default: broker.queue.", metavar="NAME"),
    ] = None,
    dlq: Annotated[
        str | None, typer.Option(help="Dead-letter queue. Default: deadletter.queue.", metavar="NAME")
    ] = None,
    type_: Annotated[
        QueueType | None, typer.Option("--type", help="Type. Default for new queues: broker.queue_type.")
    ] = None,
    max_priority: Annotated[
        int | None, typer.Option(min=1, max=255, help="Highest priority; classic queues only.", metavar="N")
    ] = None,
    delivery_limit: Annotated[
        int | None, typer.Option(min=0, help="Most deliveries of an event; quorum queues only.", metavar="N")
    ] = None,
    dead_letter_exchange: Annotated[
        str | None,
        typer.Option(help="Where RabbitMQ sends events that it drops; amq.default for the default.", metavar="NAME"),
    ] = None,
    dead_letter_routing_key: Annotated[
        str | None, typer.Option(help="Their routing key, in place of their own.", metavar="KEY")
    ] = None,
    broker: Annotated[str | None, typer.Option(help="Broker, e.g. amqp://a,b/VHOST.", metavar="URL")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    output: Annotated[TableOrJson, typer.Option("--output", "-o", help="Form of the output.")] = TableOrJson.table,
) -> None:
    """Show how queues stand to what is asked for, and make those that are missing. Changes nothing that exists.

    The options but --type are for the queues of events, not for the dead-letter queue. Exit code 1: a queue differs.
    """
    from infertool import brokers
    from infertool.brokers import weighted_queues
    from infertool.brokers.declaring import QueueSpec
    from infertool.cli.rabbitmq.run import Request, run
    from infertool.errors import UsageError

    loaded = ctx.obj.load({"broker.url": ("--broker", broker)})
    settings = loaded.settings
    kind = type_.value if type_ else ""
    made = kind or settings.broker.queue_type
    if max_priority is not None and made == QueueType.quorum:
        raise UsageError("--max-priority needs a classic queue", advice="add --type classic")
    if delivery_limit is not None and made == QueueType.classic:
        raise UsageError("--delivery-limit needs a quorum queue", advice="add --type quorum")
    if dead_letter_routing_key is not None and dead_letter_exchange is None:
        raise UsageError(
            "--dead-letter-routing-key needs --dead-letter-exchange", advice="add --dead-letter-exchange amq.default"
        )
    name = brokers.conventions(settings.broker.url).queue
    events = [
        QueueSpec(
            name=each,
            type=kind,
            max_priority=max_priority,
            delivery_limit=delivery_limit,
            dead_letter_exchange="" if dead_letter_exchange == _DEFAULT_EXCHANGE else dead_letter_exchange,
            dead_letter_routing_key=dead_letter_routing_key,
        )
        for each in map(name, queue or weighted_queues.names(settings.broker.queue))
    ]
    dead = QueueSpec(name=name(dlq or settings.deadletter.queue), type=kind)
    if dead.name in {each.name for each in events}:
        raise UsageError(f"{dead.name} is both --queue and --dlq")
    run(settings, Request(specs=(*events, dead), default_type=made, yes=yes, as_json=output is TableOrJson.json))
