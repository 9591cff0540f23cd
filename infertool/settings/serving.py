"""The settings of `infertool serve-model`, a part of the tree."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """A model behind HTTP (`serve-model`). Keys, limits and TLS are those of `gateway`."""

    listen: str = "127.0.0.1:8081"
    """HOST:PORT, or PORT on 127.0.0.1, to listen on; port 0 takes a free one."""
    name: str = ""
    """The model's name in the v2 protocol; empty: from model.spec."""
    max_queue: int = 1000
    """Limit of events that wait for the model; more are refused."""
    queue_timeout_s: float = 10.0
    """Maximum wait for the model: an event that would wait longer is refused, one that has waited longer expires."""
