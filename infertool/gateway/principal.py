"""Who sends a request: whose limits and requests count, and what it may use."""

from __future__ import annotations

from dataclasses import dataclass

from infertool.gateway.problem import Problem, Reason
from infertool.gateway.rate import Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLimits:
    """How much one client may have. `rate` is None where no rate is set."""

    rate: Rate | None
    max_in_flight: int
    max_bytes_in_flight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A client that was identified. `models` and `classes` are None where it may use all.

    `client` is `key:NAME`, `token:SUBJECT`, `certificate:NAME` or `address:ADDRESS`, so that one kind of credential
    never stands for the client of another kind.
    """

    client: str
    limits: ClientLimits
    models: frozenset[str] | None = None
    classes: frozenset[str] | None = None

    def class_for(self, named: str, default: str) -> str:
        """Return the class of a request: the one it names, else the default one, else the only one it may use."""
        if named or self.classes is None or default in self.classes or len(self.classes) != 1:
            return named or default
        return next(iter(self.classes))

    def check(self, model: str, class_name: str) -> None:
        """Raise `Problem` if this client may not use the model or the class."""
        if self.models is not None and model not in self.models:
            raise _forbidden(Reason.MODEL_FORBIDDEN, "models", self.models)
        if self.classes is not None and class_name not in self.classes:
            raise _forbidden(Reason.CLASS_FORBIDDEN, "classes", self.classes)


def _forbidden(reason: Reason, what: str, allowed: frozenset[str]) -> Problem:
    names = sorted(allowed)
    return Problem(reason, f"{what} that it may use: {', '.join(names) or 'none'}", members={f"allowed_{what}": names})
