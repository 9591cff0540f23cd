"""What belongs to one HTTP request beside the request itself, and to one connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.requests import Request

# Its place in an ASGI scope.
KEY: Final = "infertool"
CONNECTION: Final = "infertool.connection"


@dataclass(slots=True)
class Connection:
    """A client's connection. `on_lost` is called, once, when it ends while a request waits."""

    certificate_name: str | None = None
    on_lost: Callable[[], None] | None = None
    is_lost: bool = False


def _nothing() -> None:
    pass


@dataclass(slots=True)
class Context:
    """`headers` go into the response, whatever it is. `step`: where the chain is; `class_name`: "" until known.

    `release` takes back what the chain counted for the request, unless the engine has it: whatever ends it.
    """

    connection: Connection
    started: float
    headers: dict[str, str] = field(default_factory=dict)
    step: str = "route"
    class_name: str = ""
    release: Callable[[], None] = _nothing


def of(request: Request) -> Context:
    """Return the context of a request."""
    found: Context = request.scope[KEY]
    return found
