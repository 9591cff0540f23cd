"""`infertool dashboards`: dashboards for the metrics of a consumer."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="Print dashboards for the metrics of `consume --metrics`.",
    epilog="Example: infertool dashboards grafana > infertool.json",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def dashboards() -> None:
    """Print dashboards for the metrics of `consume --metrics`."""


@app.command(epilog="Example: infertool dashboards grafana > infertool.json   then Dashboards, New, Import")
def grafana() -> None:
    """Print a Grafana dashboard. It asks for its Prometheus data source when it is imported."""
    import json

    from infertool.cli.common import console
    from infertool.cli.dashboards.grafana import dashboard

    console.out_data(*json.dumps(dashboard(), indent=1).split("\n"))
